// What a warp does with matrices: the lanes' registers in, all lanes' results out. Layouts are those of the PTX ISA (ldmatrix;
// mma.m16n8k8 and .m16n8k16), said in templates/cuda/lib/ptx.cuh.
#include <string.h>

#include "cuda_matrix.hpp"

namespace fusec_emulator {
namespace {

constexpr unsigned ROWS = 16, COLUMNS = 8, DEEPEST = 16;
constexpr unsigned ROW_BYTES = 16;

struct Load {
    unsigned row[4];
    unsigned* result;
    unsigned count;
};

struct Store {
    void* row;
    const unsigned* value;
    unsigned count;
};

struct Transposed {
    unsigned given, result;
};

struct Product {
    Element element;
    unsigned depth;
    float* d;
    const unsigned* a;
    const unsigned* b;
    const float* c;
};

void give_rows(void* const (&parts)[WARP]) {
    for (unsigned l = 0; l < WARP; ++l) {
        const Load& load = *static_cast<const Load*>(parts[l]);
        for (unsigned m = 0; m < load.count; ++m) load.result[m] = static_cast<const Load*>(parts[8 * m + l / 4])->row[l % 4];
    }
}

void take_rows(void* const (&parts)[WARP]) {
    for (unsigned i = 0; i < 8 * static_cast<const Store*>(parts[0])->count; ++i) {
        unsigned row[4];
        for (unsigned k = 0; k < 4; ++k) row[k] = static_cast<const Store*>(parts[i % 8 * 4 + k])->value[i / 8];
        memcpy(static_cast<const Store*>(parts[i])->row, row, ROW_BYTES);
    }
}

void transpose_warp(void* const (&parts)[WARP]) {
    for (unsigned l = 0; l < WARP; ++l) {
        unsigned pair[2];
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned row = l % 4 * 2 + i, column = l / 4;
            pair[i] = static_cast<const Transposed*>(parts[row * 4 + column / 2])->given >> column % 2 * 16 & 0xFFFFu;
        }
        static_cast<Transposed*>(parts[l])->result = pair[0] | pair[1] << 16;
    }
}

float element_of(const Product& product, unsigned pair, unsigned half) {
    const auto bits = static_cast<half_bits>(pair >> 16 * half);
    return product.element == Element::FLOAT16 ? half_to_float(bits) : bfloat_to_float(bits);
}

void multiply_warp(void* const (&parts)[WARP]) {
    double a[ROWS][DEEPEST], b[DEEPEST][COLUMNS], sum[ROWS][COLUMNS] = {};
    const unsigned depth = static_cast<const Product*>(parts[0])->depth;
    for (unsigned l = 0; l < WARP; ++l) {
        const Product& product = *static_cast<const Product*>(parts[l]);
        for (unsigned i = 0; i < depth / 4; ++i) {
            const unsigned k = i / 2 * 8 + l % 4 * 2 + i % 2;
            a[l / 4][k] = element_of(product, product.a[i / 2 * 2], i % 2);
            a[l / 4 + 8][k] = element_of(product, product.a[i / 2 * 2 + 1], i % 2);
            b[k][l / 4] = element_of(product, product.b[i / 2], i % 2);
        }
    }
    for (unsigned y = 0; y < ROWS; ++y) {
        for (unsigned k = 0; k < depth; ++k) {
            for (unsigned x = 0; x < COLUMNS; ++x) sum[y][x] += a[y][k] * b[k][x];
        }
    }
    for (unsigned l = 0; l < WARP; ++l) {
        const Product& product = *static_cast<const Product*>(parts[l]);
        for (unsigned i = 0; i < 4; ++i) {
            product.d[i] = static_cast<float>(sum[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2] + product.c[i]);
        }
    }
}

void check_row(const char* name, int line, const void* row) {
    if (!in_scratch(row, ROW_BYTES)) fail(line, name, ": the row is not in the block's dynamic shared memory");
    if (reinterpret_cast<uintptr_t>(row) % ROW_BYTES != 0) fail(line, name, ": the row's address is not aligned to 16 bytes");
}

}  // namespace

void load_matrix(const char* name, int line, unsigned count, unsigned* r, const void* row) {
    check_row(name, line, row);
    Load load{{}, r, count};
    if (lane() < 8 * count) memcpy(load.row, row, ROW_BYTES);
    warp_call_whole(name, line, &load, give_rows);
}

void store_matrix(const char* name, int line, unsigned count, void* row, const unsigned* r) {
    if (lane() < 8 * count) check_row(name, line, row);
    Store store{row, r, count};
    warp_call_whole(name, line, &store, take_rows);
}

unsigned transpose_matrix(const char* name, int line, unsigned r) {
    Transposed transposed{r, 0};
    warp_call_whole(name, line, &transposed, transpose_warp);
    return transposed.result;
}

void multiply(const char* name, int line, Element element, unsigned depth, float* d, const unsigned* a, const unsigned* b,
              const float* c) {
    Product product{element, depth, d, a, b, c};
    warp_call_whole(name, line, &product, multiply_warp);
}

}  // namespace fusec_emulator
