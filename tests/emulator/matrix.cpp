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

struct Product {
    Element element;
    unsigned depth;
    float* d;
    const unsigned* a;
    const unsigned* b;
};

void give_rows(void* const (&parts)[WARP]) {
    for (unsigned l = 0; l < WARP; ++l) {
        const Load& load = *static_cast<const Load*>(parts[l]);
        for (unsigned m = 0; m < load.count; ++m) load.result[m] = static_cast<const Load*>(parts[8 * m + l / 4])->row[l % 4];
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
        float* d = static_cast<const Product*>(parts[l])->d;
        for (unsigned i = 0; i < 4; ++i) d[i] = static_cast<float>(sum[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2] + d[i]);
    }
}

}  // namespace

void load_matrix(const char* name, int line, unsigned count, unsigned* r, const void* row) {
    if (!in_scratch(row, ROW_BYTES)) fail(line, name, ": the row is not in the block's dynamic shared memory");
    if (reinterpret_cast<uintptr_t>(row) % ROW_BYTES != 0) fail(line, name, ": the row's address is not aligned to 16 bytes");
    Load load{{}, r, count};
    if (lane() < 8 * count) memcpy(load.row, row, ROW_BYTES);
    warp_call_whole(name, line, &load, give_rows);
}

void multiply(const char* name, int line, Element element, unsigned depth, float* d, const unsigned* a, const unsigned* b) {
    Product product{element, depth, d, a, b};
    warp_call_whole(name, line, &product, multiply_warp);
}

}  // namespace fusec_emulator
