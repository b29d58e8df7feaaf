// Rows of few channels whose values a fragment takes in pairs: channels lie side by side in each column, and every row is there
// twice, the second time one value on, so that the pair from any value on is one aligned word.
template <int OFFSET, int IMAGE, int ROW_PITCH>
struct PairedRows {
  static constexpr bool IN_SCRATCH = true;
  static constexpr int ROWS_HELD = 0, PITCH = ROW_PITCH;
  value_t* data;
  int n0, batch, c0, y0, x0, height, width;

  __device__ __forceinline__ value_t* row(int n, int y) const { return data + OFFSET + n * IMAGE + y * 2 * ROW_PITCH; }
};

// Copy ROWS rows of COLUMNS columns from FIRST_Y and FIRST_X on; zeros outside the image and the batch. A thread has the loads of
// several pixels under way.
template <class S, class Out, class In>
__device__ __forceinline__ void pair_rows(const Out& out, const In& in) {
  constexpr unsigned COUNT = S::IMAGES * S::ROWS * S::COLUMNS, BATCH = S::DEEP == 1 ? 8 : 4;
  long long pitch = 0, row = 0, image = 0;  // from one channel, row and image to the next
  if constexpr (In::IN_SCRATCH) {
    pitch = In::PLANE, row = In::PITCH, image = in.index(1, 0, 0, 0) - in.index(0, 0, 0, 0);
  } else {
    row = in.width, pitch = row * in.height, image = pitch * In::DEPTH;
  }
  const auto* const origin = in.data + in.index(0, 0, S::FIRST_Y, S::FIRST_X);
#pragma unroll 1
  for (unsigned first = threadIdx.x; first < COUNT; first += BATCH * blockDim.x) {
    value_t v[BATCH][S::DEEP];
#pragma unroll
    for (unsigned i = 0; i < BATCH; ++i) {
      const unsigned item = first + i * blockDim.x;
      const int x = item % S::COLUMNS, y = item / S::COLUMNS % S::ROWS, n = item / (S::COLUMNS * S::ROWS);
      const auto* at = origin + (y * int(row) + x) + (S::IMAGES > 1 ? n * image : 0);
      bool there = item < COUNT;
      if constexpr (!In::IN_SCRATCH) there = there && in.inside(y + S::FIRST_Y, x + S::FIRST_X) && in.n0 + n < in.batch;
#pragma unroll
      for (int c = 0; c < S::DEEP; ++c) {
        if constexpr (In::IN_SCRATCH) v[i][c] = there ? at[c * pitch] : value_t(0);
        else v[i][c] = there ? __ldg(at + c * pitch) : value_t(0);
      }
    }
#pragma unroll
    for (unsigned i = 0; i < BATCH; ++i) {
      const unsigned item = first + i * blockDim.x;
      if (item >= COUNT) break;
      const int x = item % S::COLUMNS, y = item / S::COLUMNS % S::ROWS, n = item / (S::COLUMNS * S::ROWS);
      value_t* to = out.row(n, y) + x * S::DEEP;
#pragma unroll
      for (int c = 0; c < S::DEEP; ++c) {
        to[c] = v[i][c];
        if (c > 0 || x > 0) to[Out::PITCH + c - 1] = v[i][c];
      }
    }
  }
}
