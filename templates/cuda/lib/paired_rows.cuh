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

// Copy ROWS rows of COLUMNS columns from FIRST_Y and FIRST_X on; zeros outside the image and the batch. A row is a warp's, which has
// the loads of several under way.
template <class S, class Out, class In>
__device__ __forceinline__ void pair_rows(const Out& out, const In& in) {
  constexpr int COUNT = S::IMAGES * S::ROWS, TURNS = (S::COLUMNS + 31) / 32;
  constexpr int BATCH = TURNS * S::DEEP < 8 ? 8 / (TURNS * S::DEEP) : 1;
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  long long pitch = 0, row = 0, image = 0;  // from one channel, row and image to the next
  if constexpr (In::IN_SCRATCH) {
    pitch = In::PLANE, row = In::PITCH, image = in.index(1, 0, 0, 0) - in.index(0, 0, 0, 0);
  } else {
    row = in.width, pitch = row * in.height, image = pitch * In::DEPTH;
  }
  const auto* const origin = in.data + in.index(0, 0, S::FIRST_Y, S::FIRST_X) + lane;
#pragma unroll 1
  for (int first = threadIdx.x / 32; first < COUNT; first += BATCH * warps) {
    value_t v[BATCH][TURNS][S::DEEP];
#pragma unroll
    for (int i = 0; i < BATCH; ++i) {
      const int line = first + i * warps, n = S::IMAGES > 1 ? line / S::ROWS : 0, y = S::IMAGES > 1 ? line % S::ROWS : line;
      const auto* const at = origin + y * row + n * image;
      bool whole = line < COUNT;
      if constexpr (!In::IN_SCRATCH)
        whole = whole && unsigned(in.y0 + S::FIRST_Y + y) < unsigned(in.height) && in.n0 + n < in.batch;
#pragma unroll
      for (int t = 0; t < TURNS; ++t) {
        const int x = lane + 32 * t;
        bool there = whole && x < S::COLUMNS;
        if constexpr (!In::IN_SCRATCH) there = there && unsigned(in.x0 + S::FIRST_X + x) < unsigned(in.width);
#pragma unroll
        for (int c = 0; c < S::DEEP; ++c) {
          if constexpr (In::IN_SCRATCH) v[i][t][c] = there ? at[32 * t + c * pitch] : value_t(0);
          else v[i][t][c] = there ? __ldg(at + 32 * t + c * pitch) : value_t(0);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < BATCH; ++i) {
      const int line = first + i * warps, n = S::IMAGES > 1 ? line / S::ROWS : 0, y = S::IMAGES > 1 ? line % S::ROWS : line;
      if (line >= COUNT) break;
      value_t* const to = out.row(n, y) + lane * S::DEEP;
#pragma unroll
      for (int t = 0; t < TURNS; ++t) {
        const int x = lane + 32 * t;
        if (x >= S::COLUMNS) break;
#pragma unroll
        for (int c = 0; c < S::DEEP; ++c) {
          const int place = 32 * t * S::DEEP + c;
          to[place] = v[i][t][c];
          if (c > 0 || x > 0) to[Out::PITCH + place - 1] = v[i][t][c];
        }
      }
    }
  }
}

// Fragments of few input channels whose rows come in pairs.
template <class S, class In>
struct PairedFragments {
  const value_t* at[S::FRAGMENTS][2];
  unsigned last;  // what counts of the lane's pairs among the last eight products of a row

  template <class Place>
  __device__ __forceinline__ PairedFragments(const In& in, int, const Place& place) {
    const int behind = (S::GROUP_IN + 7) % 8 + 1 - int(threadIdx.x % 4 * 2);
    last = behind >= 2 ? 0xffffffffu : behind == 1 ? 0xffffu : 0u;
#pragma unroll
    for (int f = 0; f < S::FRAGMENTS; ++f)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const auto p = place(f, threadIdx.x % 32 / 4 + 8 * h);
        const int from = (p.x * S::STRIDE_X + S::OFFSET_X) * S::DEEP;
        at[f][h] = in.row(p.n, 0) + from % 2 * (In::PITCH - 1) + from + threadIdx.x % 4 * 2;
      }
  }
  __device__ __forceinline__ int row(int y) const { return y; }
  __device__ __forceinline__ void load(unsigned (&a)[4], int f, int pair, int y, int, bool half) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int first = 16 * pair + 8 * (i / 2);
      if (half && i >= 2) {
        a[i] = 0;
        continue;
      }
      a[i] = *reinterpret_cast<const unsigned*>(at[f][i % 2] + y * 2 * In::PITCH + first);
      if (first + 8 > S::GROUP_IN) a[i] &= last;
    }
  }
};

template <class S, class In>
struct FragmentsOf<S, In, true, true> {
  typedef PairedFragments<S, In> Loader;
};
