// Fragments of few input channels collected value by value, where there are no rows in pairs.
template <class S, class In>
struct GatheredFragments {
  const In& in;
  int n[S::FRAGMENTS][2], x[S::FRAGMENTS][2];

  template <class Place>
  __device__ __forceinline__ GatheredFragments(const In& in_, int, const Place& place) : in(in_) {
#pragma unroll
    for (int f = 0; f < S::FRAGMENTS; ++f)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const auto p = place(f, threadIdx.x % 32 / 4 + 8 * h);
        n[f][h] = p.n, x[f][h] = p.x * S::STRIDE_X + S::OFFSET_X;
      }
  }
  __device__ __forceinline__ int row(int y) const { return y; }
  __device__ __forceinline__ void load(unsigned (&a)[4], int f, int pair, int y, int, bool half) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      unsigned both = 0;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int e = 16 * pair + 8 * (i / 2) + threadIdx.x % 4 * 2 + j;
        if ((half && i >= 2) || e >= S::GROUP_IN) continue;
        both |= bits(in, n[f][i % 2], e % S::DEEP, y, x[f][i % 2] + e / S::DEEP * S::DILATION_X) << 16 * j;
      }
      a[i] = both;
    }
  }
};
template <class S, class In>
struct FragmentsOf<S, In, true, false> {
  typedef GatheredFragments<S, In> Loader;
};
