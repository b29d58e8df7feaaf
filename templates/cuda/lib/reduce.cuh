// Reductions by one warp: lane l takes elements l, l + 32, ...; the lanes' results meet in a butterfly, always the same one.
template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
  return v;
}

// The mean over the whole image, which the box that is read holds. A lane adds its values of one row in single precision, the
// rows in double precision.
template <class S, class Out, class In>
__device__ __forceinline__ void global_avg_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  fill_border<S>(out);
  fill_outside<S>(out);
  const Pixel<S> pixel(out);
  if (!pixel.inside) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int item = warp; item < S::IMAGES * S::CHANNELS; item += blockDim.x / 32) {
    const int n = item / S::CHANNELS, c = item % S::CHANNELS;
    double sum = 0.0;
    for (int y = 0; y < in.height; ++y) {
      float row = 0.0f;
      for (int x = lane; x < in.width; x += 32) row += in.at(n, out.c0 + c - in.c0, y - in.y0, x - in.x0);
      sum += row;
    }
    const float mean = float(warp_sum(sum) / (double(in.height) * in.width));
    if (lane == 0) out.template store<S::INSIDE>(n, c, pixel.y, pixel.x, S::epilogue(mean, out.c0 + c, params));
  }
}

// The largest value of the whole image, which the box that is read holds; NaN wins.
template <class S, class Out, class In>
__device__ __forceinline__ void global_max_pool2d(const Out& out, const float* __restrict__ params, const In& in) {
  fill_border<S>(out);
  fill_outside<S>(out);
  const Pixel<S> pixel(out);
  if (!pixel.inside) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int item = warp; item < S::IMAGES * S::CHANNELS; item += blockDim.x / 32) {
    const int n = item / S::CHANNELS, c = item % S::CHANNELS;
    float best = -infinity();
    for (int y = 0; y < in.height; ++y)
      for (int x = lane; x < in.width; x += 32) best = larger(in.at(n, out.c0 + c - in.c0, y - in.y0, x - in.x0), best);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) best = larger(__shfl_xor_sync(0xffffffffu, best, step), best);
    if (lane == 0) out.template store<S::INSIDE>(n, c, pixel.y, pixel.x, S::epilogue(best, out.c0 + c, params));
  }
}

// f(x - max, sum of exp(x - max)) over all channels of each position; DEPTH is the number of channels.
template <class S, class F, class Out, class In>
__device__ __forceinline__ void over_channels(F f, const Out& out, const float* __restrict__ params, const In& in) {
  if (is_idle<S>(out)) return;
  fill_border<S>(out);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int item = warp; item < S::IMAGES * S::ROWS * S::COLUMNS; item += blockDim.x / 32) {
    const int x = S::COLUMN + item % S::COLUMNS, y = S::ROW + item / S::COLUMNS % S::ROWS, n = item / (S::COLUMNS * S::ROWS);
    if (!is_made<S>(out, y)) continue;
    float best = -infinity(), sum = 0.0f;
    for (int c = lane; c < S::DEPTH; c += 32) best = fmaxf(best, in.at(n, c, y, x));
    best = warp_max(best);
    for (int c = lane; c < S::DEPTH; c += 32) sum += expf(in.at(n, c, y, x) - best);
    sum = warp_sum(sum);
    for (int c = lane; c < S::CHANNELS; c += 32) {
      const float v = f(in.at(n, out.c0 + c, y, x) - best, sum);
      out.template store<S::INSIDE>(n, c, y, x, S::epilogue(v, out.c0 + c, params));
    }
  }
}

template <class S, class Out, class In>
__device__ __forceinline__ void softmax(const Out& out, const float* __restrict__ params, const In& in) {
  over_channels<S>([](float below, float sum) { return expf(below) / sum; }, out, params, in);
}
template <class S, class Out, class In>
__device__ __forceinline__ void log_softmax(const Out& out, const float* __restrict__ params, const In& in) {
  over_channels<S>([](float below, float sum) { return __fsub_rn(below, logf(sum)); }, out, params, in);
}
