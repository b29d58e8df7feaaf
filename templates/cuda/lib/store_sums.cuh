// What a warp does with the sums of a piece: finish them and store them where the stage writes.

// Store a piece's sums pair by pair.
template <class S, class Out, class Piece, class Place>
__device__ __forceinline__ void store_pairs(const Out& out, const FragmentSums<S>& sum, const Piece& piece, const Place& place,
                                            const float* __restrict__ params) {
  const int lane = threadIdx.x % 32, c = piece.group * 8 + lane % 4 * 2;
#pragma unroll
  for (int f = 0; f < S::FRAGMENTS; ++f)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const auto p = place(f, lane / 4 + 8 * h);
      const PairColumn<Out> column(out, p.n, c, p.x, S::INSIDE);
#pragma unroll
      for (int r = 0; r < S::BLOCK_Y; ++r) {
        const int y = piece.y + r;
        const bool kept = p.real && piece.owns(y) && is_made<S>(out, y);
        const bool inside = S::INSIDE || unsigned(out.y0 + y) < unsigned(out.height);
#pragma unroll
        for (int k = 0; k < S::BLOCK_C; ++k)
          column.store(kept, y, inside, k,
                       finished_pair<S>(sum[f][r][k][2 * h], sum[f][r][k][2 * h + 1], out.c0 + c + 8 * k, params));
      }
    }
}

// One row of a fragment into planes in scratch by matrix stores: `row` is the place of the lane's pixel in its plane.
template <class S, class Out>
__device__ __forceinline__ void store_row(value_t* row, const unsigned (&both)[S::BLOCK_C][2]) {
#pragma unroll
  for (int k = 0; k + 1 < S::BLOCK_C; k += 2) {
    const unsigned four[4] = {both[k][0], both[k][1], both[k + 1][0], both[k + 1][1]};
    store_matrix_x4(row + k * Out::PLANE, four);
  }
  if constexpr (S::BLOCK_C % 2 == 1) store_matrix_x2(row + (S::BLOCK_C - 1) * Out::PLANE, both[S::BLOCK_C - 1]);
}

// As `store_pairs`, into planes in scratch by matrix stores. Columns that are not real are the last one once more, with its very
// bits.
template <class S, class Out, class Piece, class Place>
__device__ __forceinline__ void store_planes(const Out& out, const FragmentSums<S>& sum, const Piece& piece, const Place& place,
                                             const float* __restrict__ params) {
  const int lane = threadIdx.x % 32, c = piece.group * 8 + lane % 4 * 2;
  const unsigned padding = rounded_pair(out.padding(), out.padding());
  const bool whole = S::INSIDE || (out.x0 + S::COLUMN >= 0 && out.x0 + S::COLUMN + S::COLUMNS <= out.width &&
                                   out.y0 + piece.y >= 0 && out.y0 + piece.y + S::BLOCK_Y <= out.height);
#pragma unroll
  for (int f = 0; f < S::FRAGMENTS; ++f) {
    const auto p = place(f, lane % 16);
    value_t* at = out.data + out.column_start(p.n, 8 * piece.group, p.x) + lane / 16 * Out::PLANE;
    const auto finish = [&](unsigned(&both)[S::BLOCK_C][2], int r) {
#pragma unroll
      for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float *low = &sum[f][r][k][2 * h], *high = low + 1;
          both[k][h] = behind_last<Out>(c + 8 * k, finished_pair<S>(*low, *high, out.c0 + c + 8 * k, params));
        }
    };
    if (whole) {
      value_t* first = at + out.row_start(piece.y);
#pragma unroll
      for (int r = 0; r < S::BLOCK_Y; ++r) {
        if (!(piece.owns(piece.y + r) && is_made<S>(out, piece.y + r))) continue;
        unsigned both[S::BLOCK_C][2];
        finish(both, r);
        store_row<S, Out>(Out::ROWS_HELD == 0 ? first + r * Out::PITCH : at + out.row_start(piece.y + r), both);
      }
    } else if constexpr (!S::INSIDE) {
      bool outside[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) outside[h] = unsigned(out.x0 + place(f, lane / 4 + 8 * h).x) >= unsigned(out.width);
#pragma unroll
      for (int r = 0; r < S::BLOCK_Y; ++r) {
        const int y = piece.y + r;
        if (!(piece.owns(y) && is_made<S>(out, y))) continue;
        const bool beyond = unsigned(out.y0 + y) >= unsigned(out.height);
        unsigned both[S::BLOCK_C][2];
        finish(both, r);
#pragma unroll
        for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
          for (int h = 0; h < 2; ++h)
            if (beyond || outside[h]) both[k][h] = behind_last<Out>(c + 8 * k, padding);
        store_row<S, Out>(at + out.row_start(y), both);
      }
    }
  }
}

// As `store_pairs`, into device memory without planes, by rows: lanes turn matrices and exchange pairs with their neighbours, then
// those of even number have four of the first eight columns of a fragment, the others of the last. Four columns lie in one image.
template <class S, class Out, class Piece, class Place>
__device__ __forceinline__ void store_rows(const Out& out, const FragmentSums<S>& sum, const Piece& piece, const Place& place,
                                           const float* __restrict__ params) {
  const int lane = threadIdx.x % 32, c = piece.group * 8, first = lane % 2 == 1 ? lane % 4 * 2 + 6 : lane % 4 * 2;
  const long long pitch = (long long)out.height * out.width;
#pragma unroll
  for (int f = 0; f < S::FRAGMENTS; ++f) {
    const auto p = place(f, first), last = place(f, first + 3);
    value_t* const at = out.data + out.index(p.n, c + lane / 4, piece.y, p.x);
    const bool four = last.real && out.x0 + p.x >= 0 && out.x0 + last.x < out.width;
    const bool there = p.real && out.n0 + p.n < out.batch;
    const bool aligned = four && out.width % 4 == 0 && reinterpret_cast<unsigned long long>(at) % 8 == 0;
#pragma unroll
    for (int r = 0; r < S::BLOCK_Y; ++r) {
      const int y = piece.y + r;
      if (!(piece.owns(y) && is_made<S>(out, y) && unsigned(out.y0 + y) < unsigned(out.height))) continue;
#pragma unroll
      for (int k = 0; k < S::BLOCK_C; ++k) {
        unsigned half[2];
#pragma unroll
        for (int h = 0; h < 2; ++h)
          half[h] = transpose_matrix(
              finished_pair<S>(sum[f][r][k][2 * h], sum[f][r][k][2 * h + 1], out.c0 + c + 8 * k + lane % 4 * 2, params));
        const unsigned taken = __shfl_xor_sync(0xffffffffu, lane % 2 == 1 ? half[0] : half[1], 1);
        const uint2 columns = lane % 2 == 1 ? uint2{taken, half[1]} : uint2{half[0], taken};
        if (!there || (Out::DEPTH % 8 != 0 && out.c0 + c + 8 * k + lane / 4 >= Out::DEPTH)) continue;
        value_t* const to = at + r * out.width + 8 * k * pitch;
        if (aligned) {
          *reinterpret_cast<uint2*>(to) = columns;
        } else {
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (p.x + i <= last.x && unsigned(out.x0 + p.x + i) < unsigned(out.width))
              to[i] = value_t((i < 2 ? columns.x : columns.y) >> i % 2 * 16);
        }
      }
    }
  }
}

// The same into planes in device memory.
template <class S, class Out, class Piece, class Place>
__device__ __forceinline__ void store_pixels(const Out& out, const FragmentSums<S>& sum, const Piece& piece, const Place& place,
                                             const float* __restrict__ params) {
  const int lane = threadIdx.x % 32, c = piece.group * 8 + lane % 4 * 2;
  const long long row = 8ll * out.width, plane = row * out.height;
#pragma unroll
  for (int f = 0; f < S::FRAGMENTS; ++f)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const auto p = place(f, lane / 4 + 8 * h);
      value_t* const at = out.data + out.index(p.n, c, piece.y, p.x);
      const bool there = p.real && unsigned(out.x0 + p.x) < unsigned(out.width) && out.n0 + p.n < out.batch;
#pragma unroll
      for (int r = 0; r < S::BLOCK_Y; ++r) {
        const int y = piece.y + r;
        if (!(piece.owns(y) && is_made<S>(out, y) && unsigned(out.y0 + y) < unsigned(out.height) && there)) continue;
#pragma unroll
        for (int k = 0; k < S::BLOCK_C; ++k) {
          const unsigned both = finished_pair<S>(sum[f][r][k][2 * h], sum[f][r][k][2 * h + 1], out.c0 + c + 8 * k, params);
          *reinterpret_cast<unsigned*>(at + r * row + k * plane) = behind_last<Out>(out.c0 + c + 8 * k, both);
        }
      }
    }
}
