// Transposed convolution as a gather: output position y is fed by tap k where (y + PHASE - k * DILATION) divides by STRIDE. The
// lanes of a vector are output channels; the sum runs over kernel rows, kernel columns, input channels.
template <class S, class Out, class In>
INLINE void conv_transpose2d(const Out& out, const float* __restrict__ params, const In& in) {
  typedef Vector<S::LANES> V;
  const Region r = clip_region<S>(out);
  fill_border<S>(out, r);
  for (int n = 0; n < r.images; ++n)
    for (int y = r.top; y < r.bottom; ++y)
      for (int x = r.left; x < r.right; ++x)
        for (int unit = 0; unit < S::CHANNELS; unit += S::UNIT)
          for (int part = 0; part < S::UNIT; part += S::LANES) {
            const int c = unit + part, channel = out.c0 + c, group = channel / S::GROUP_OUT, place = channel % S::GROUP_OUT;
            const int first = group * S::GROUP_IN - in.c0;
            V sum = load<V>(params + S::BIAS + channel);
            for (int ky = 0; ky < S::KERNEL_Y; ++ky) {
              const int ty = y + S::PHASE_Y - ky * S::DILATION_Y;
              if (ty < 0 || ty % S::STRIDE_Y != 0) continue;
              for (int kx = 0; kx < S::KERNEL_X; ++kx) {
                const int tx = x + S::PHASE_X - kx * S::DILATION_X;
                if (tx < 0 || tx % S::STRIDE_X != 0) continue;
                const float* weights = params + S::WEIGHTS + group * S::GROUP_SIZE + weight_place<S>(place) +
                                       (ky * S::KERNEL_X + kx) * S::GROUP_IN * S::WEIGHT_LANES;
                for (int ci = 0; ci < S::GROUP_IN; ++ci, weights += S::WEIGHT_LANES)
                  sum = multiply_add(in.at(n, first + ci, ty / S::STRIDE_Y + S::OFFSET_Y, tx / S::STRIDE_X + S::OFFSET_X),
                                     load<V>(weights), sum);
              }
            }
            out.template put<S::LANES>(n, c, y, x, S::epilogue(sum, channel, params), S::UNIT - part);
          }
}
