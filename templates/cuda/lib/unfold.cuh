// Rows of taps: what a convolution with few input channels reads in one row under one of its columns, as channels of planes. Number
// e of a position is channel e % DEEP of the input, e / DEEP filter columns on; zeros behind the last of DEPTH, outside the image
// and, in device memory, outside the batch.
template <class S, class In>
__device__ __forceinline__ uint4 unfolded(const In& in, int n, int plane, int y, int x) {
  unsigned v[8];
  if constexpr (In::IN_SCRATCH) {
    const value_t* row = in.data + in.row_start(y);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int e = 8 * plane + i;
      v[i] = e < S::DEPTH ? row[in.column_start(n, e % S::DEEP, x + e / S::DEEP * S::DILATION_X)] : 0u;
    }
  } else {
    const bool inside = unsigned(in.y0 + y) < unsigned(in.height) && in.n0 + n < in.batch;
    const long long pitch = (long long)in.height * in.width;
    const auto* row = in.data + in.index(n, 0, y, 0);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int e = 8 * plane + i, column = x + e / S::DEEP * S::DILATION_X;
      const bool there = inside && e < S::DEPTH && unsigned(in.x0 + column) < unsigned(in.width);
      v[i] = there ? row[e % S::DEEP * pitch + column] : 0u;
    }
  }
  return uint4{v[0] | v[1] << 16, v[2] | v[3] << 16, v[4] | v[5] << 16, v[6] | v[7] << 16};
}

// Unfold the rows from FIRST_Y on of a buffer, for COLUMNS columns of the convolution, STRIDE_X apart, from FIRST_X on.
template <class S, class Out, class In>
__device__ __forceinline__ void unfold_columns(const Out& out, const In& in) {
  constexpr int PLANES = (S::DEPTH + 7) / 8, COUNT = S::IMAGES * PLANES * S::ROWS * S::COLUMNS;
#pragma unroll 2
  for (int item = threadIdx.x; item < COUNT; item += blockDim.x) {
    const int x = item % S::COLUMNS, y = item / S::COLUMNS % S::ROWS;
    const int plane = item / (S::COLUMNS * S::ROWS) % PLANES, n = item / (S::COLUMNS * S::ROWS * PLANES);
    *reinterpret_cast<uint4*>(out.data + out.index(n, 8 * plane, y, x)) =
        unfolded<S>(in, n, plane, y + S::FIRST_Y, x * S::STRIDE_X + S::FIRST_X);
  }
}
