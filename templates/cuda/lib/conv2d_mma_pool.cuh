// A convolution whose output goes, in registers, into a pool P without overlap or padding. A warp makes eight of the pool's
// columns: row m of fragment f is column 2 f + m / 8 of window m % 8, so that a lane has all columns of its windows.
template <class S, class P, class Out, class In>
__device__ __forceinline__ void conv2d_mma_pool(const Out& out, const float* __restrict__ params, const uint2* weights,
                                                const float* bias, const In& in) {
  typedef Task<P, 8, 1, S::BLOCK_C> Piece;
  if (is_idle<P>(out)) return;
  fill_border<P>(out);
  const Filters<S> held(weights, bias, out.c0 / 8);
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int task = first_task<S::TURN>(); task < Piece::COUNT; task += blockDim.x / 32) {
    const Piece piece(task);
    if (!is_made<P>(out, piece.y)) continue;
    const auto place = [&](int f, int m) {
      auto p = Column<P>(piece.column + m % 8);
      const int tap = 2 * f + m / 8;
      p.x = p.x * P::KERNEL_X + (tap < P::KERNEL_X ? tap : P::KERNEL_X - 1);
      return p;
    };
    float pooled[S::BLOCK_C][2];
#pragma unroll
    for (int k = 0; k < S::BLOCK_C; ++k) pooled[k][0] = pooled[k][1] = P::MEAN ? 0.0f : -infinity();
    if (P::INSIDE || any_row(out, piece.y, 1)) {
#pragma unroll 1
      for (int row = 0; row < P::KERNEL_Y; row += S::BLOCK_Y) {
        FragmentSums<S> sum;
        with_filters<S>(held, weights, bias, out.c0 / 8 + piece.group, [&](const Filters<S>& filters) {
          convolve_fragments<S>(sum, in, filters, piece.y * P::KERNEL_Y + row, place);
        });
#pragma unroll
        for (int r = 0; r < S::BLOCK_Y; ++r)
#pragma unroll
          for (int tap = 0; tap < P::KERNEL_X; ++tap)
#pragma unroll
            for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
              for (int j = 0; j < 2; ++j) {
                const int channel = out.c0 + (piece.group + k) * 8 + lane % 4 * 2 + j;
                // rounded as it would be in scratch
                const float v = value(rounded(S::epilogue(sum[tap / 2][r][k][tap % 2 * 2 + j], channel, params)));
                float& best = pooled[k][j];
                if (P::MEAN) best = __fadd_rn(best, v);
                else best = larger(v, best);
              }
      }
    }
    const Column<P> p(piece.column + lane / 4);
    const bool kept = p.real && piece.owns(piece.y);
    const int c = piece.group * 8 + lane % 4 * 2;
    const PairColumn<Out> column(out, p.n, c, p.x, P::INSIDE);
    const bool inside = P::INSIDE || unsigned(out.y0 + piece.y) < unsigned(out.height);
#pragma unroll
    for (int k = 0; k < S::BLOCK_C; ++k) {
      const int channel = out.c0 + c + 8 * k;
      float v[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float pool = P::MEAN ? pooled[k][j] / float(P::KERNEL_Y * P::KERNEL_X) : pooled[k][j];
        v[j] = P::epilogue(pool, channel + j, params);
      }
      column.store(kept, piece.y, inside, k, rounded_pair(v[0], v[1]));
    }
  }
}
