// Layers that make each output of one position of each input, for tensors without planes: BLOCK_X columns of a row per thread.

// Whether BLOCK_X columns from x on of a row that lies in the image do so, too.
template <int BLOCK_X, class Buffer>
__device__ __forceinline__ bool is_run(const Buffer& b, int x) { return b.x0 + x >= 0 && b.x0 + x + BLOCK_X <= b.width; }

// BLOCK_X values of a row.
template <int BLOCK_X, class In, int Y, int X>
__device__ __forceinline__ void load_run(float (&v)[BLOCK_X], const Shifted<In, Y, X>& s, int n, int channel, int row, int column) {
  const In& in = s.in;
  const int c = channel - in.c0, y = row + Y, x = column + X;
  if constexpr (In::IN_SCRATCH || In::LANES > 1) {
#pragma unroll
    for (int p = 0; p < BLOCK_X; ++p) v[p] = in.at(n, c, y, x + p);
  } else {
    const value_t* at = in.data + in.index(n, c, y, x);
    const bool inside = unsigned(in.y0 + y) < unsigned(in.height) && in.n0 + n < in.batch;
    if (inside && is_run<BLOCK_X>(in, x)) {
      if (BLOCK_X == 4 && reinterpret_cast<unsigned long long>(at) % 8 == 0) {
        const uint2 words = __ldg(reinterpret_cast<const uint2*>(at));
#pragma unroll
        for (int p = 0; p < BLOCK_X; ++p) v[p] = value(value_t((p < 2 ? words.x : words.y) >> p % 2 * 16));
      } else {
#pragma unroll
        for (int p = 0; p < BLOCK_X; ++p) v[p] = value(__ldg(at + p));
      }
    } else {
#pragma unroll
      for (int p = 0; p < BLOCK_X; ++p)
        v[p] = inside && unsigned(in.x0 + x + p) < unsigned(in.width) ? value(__ldg(at + p)) : 0.0f;
    }
  }
}

// Store BLOCK_X values of a row through the epilogue.
template <class S, class Out>
__device__ __forceinline__ void store_run(const Out& out, const float* __restrict__ params, int n, int c, int y, int x,
                                          const float (&given)[S::BLOCK_X]) {
  float v[S::BLOCK_X];
#pragma unroll
  for (int p = 0; p < S::BLOCK_X; ++p) v[p] = S::epilogue(given[p], out.c0 + c, params);
  if constexpr (Out::IN_SCRATCH) {
#pragma unroll
    for (int p = 0; p < S::BLOCK_X; ++p) out.template store<S::INSIDE>(n, c, y, x + p, v[p]);
  } else {
    if (unsigned(out.y0 + y) >= unsigned(out.height) || out.n0 + n >= out.batch) return;
    value_t* at = out.data + out.index(n, c, y, x);
    const bool run = is_run<S::BLOCK_X>(out, x);
    if (S::BLOCK_X == 4 && run && reinterpret_cast<unsigned long long>(at) % 8 == 0) {
      *reinterpret_cast<uint2*>(at) = uint2{rounded_pair(v[0], v[1 % S::BLOCK_X]), rounded_pair(v[2 % S::BLOCK_X], v[3 % S::BLOCK_X])};
    } else {
#pragma unroll
      for (int p = 0; p < S::BLOCK_X; ++p)
        if (run || unsigned(out.x0 + x + p) < unsigned(out.width)) at[p] = rounded(v[p]);
    }
  }
}

// The sum of some tensors, or one tensor, copied into scratch or changed by an epilogue alone.
template <class S, class Out, class First, class... Rest>
__device__ __forceinline__ void sum_rows(const Out& out, const float* __restrict__ params, const First& first, const Rest&... rest) {
  each_block<S, 1, 1, S::BLOCK_X>(out, [&](const auto& b) {
    float sum[S::BLOCK_X];
    load_run(sum, first, b.n, out.c0 + b.c, b.y, b.x);
    auto add = [&](const auto& other) {
      float v[S::BLOCK_X];
      load_run(v, other, b.n, out.c0 + b.c, b.y, b.x);
#pragma unroll
      for (int p = 0; p < S::BLOCK_X; ++p) sum[p] += v[p];
    };
    (add(rest), ...);
    store_run<S>(out, params, b.n, b.c, b.y, b.x, sum);
  });
}

// As `upsample` and `depth_to_space`.
template <class S, class Out, class In>
__device__ __forceinline__ void upsample_rows(const Out& out, const float* __restrict__ params, const In& in) {
  each_block<S, 1, 1, S::BLOCK_X>(out, [&](const auto& b) {
    const int y = (b.y + S::PHASE_Y) / S::FACTOR_Y + S::OFFSET_Y;
    float v[S::BLOCK_X];
#pragma unroll
    for (int p = 0; p < S::BLOCK_X; ++p)
      v[p] = in.at(b.n, out.c0 + b.c - in.c0, y, (b.x + p + S::PHASE_X) / S::FACTOR_X + S::OFFSET_X);
    store_run<S>(out, params, b.n, b.c, b.y, b.x, v);
  });
}
template <class S, class Out, class In>
__device__ __forceinline__ void depth_to_space_rows(const Out& out, const float* __restrict__ params, const In& in) {
  each_block<S, 1, 1, S::BLOCK_X>(out, [&](const auto& b) {
    const int y = b.y + S::PHASE_Y, place = y % S::FACTOR_Y * S::FACTOR_X;
    float v[S::BLOCK_X];
#pragma unroll
    for (int p = 0; p < S::BLOCK_X; ++p) {
      const int x = b.x + p + S::PHASE_X;
      v[p] = in.at(b.n, (place + x % S::FACTOR_X) * S::PLACE_PITCH + b.c * S::CHANNEL_PITCH, y / S::FACTOR_Y + S::OFFSET_Y,
                   x / S::FACTOR_X + S::OFFSET_X);
    }
    store_run<S>(out, params, b.n, b.c, b.y, b.x, v);
  });
}
