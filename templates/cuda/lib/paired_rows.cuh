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

// One value of a row that begins at column `first`: number i, counted by columns, then channels; zero outside the image.
template <class S, class In>
__device__ __forceinline__ unsigned row_value(const In& in, const value_t* row, bool inside, long long pitch, int i) {
  const int x = i / S::DEEP, c = i % S::DEEP;
  if constexpr (In::IN_SCRATCH) return row[c * In::PLANE + x];
  else return inside && unsigned(in.x0 + S::FIRST_X + x) < unsigned(in.width) ? __ldg(row + c * pitch + x) : value_t(0);
}

// Copy ROWS rows from FIRST_Y and FIRST_X on, VALUES values of each.
template <class S, class Out, class In>
__device__ __forceinline__ void pair_rows(const Out& out, const In& in) {
  constexpr int WORDS = (S::VALUES + 1) / 2, COUNT = S::IMAGES * S::ROWS * WORDS;
#pragma unroll 4
  for (int item = threadIdx.x; item < COUNT; item += blockDim.x) {
    const int word = item % WORDS, y = item / WORDS % S::ROWS, n = item / (WORDS * S::ROWS), from = y + S::FIRST_Y;
    bool inside = true;
    long long pitch = 0;
    if constexpr (!In::IN_SCRATCH) {
      inside = unsigned(in.y0 + from) < unsigned(in.height) && in.n0 + n < in.batch;
      pitch = (long long)in.height * in.width;
    }
    const value_t* row = in.data + in.index(n, 0, from, S::FIRST_X);
    unsigned v[3];
#pragma unroll
    for (int i = 0; i < 3; ++i) v[i] = 2 * word + i < S::VALUES ? row_value<S>(in, row, inside, pitch, 2 * word + i) : 0u;
    unsigned* to = reinterpret_cast<unsigned*>(out.row(n, y)) + word;
    to[0] = v[0] | v[1] << 16;
    to[Out::PITCH / 2] = v[1] | v[2] << 16;
  }
}
