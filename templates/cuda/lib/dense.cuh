// Convolution with a single output position (a linear layer): a warp computes BLOCK_C channels x BLOCK_N images. Lane l takes
// products 4 l .. 4 l + 3 of every 128, in order; the lanes' sums meet in a butterfly and the bias comes last. The sum of one
// output is the same whatever the blocks.

// Sums of COUNT values (a power of two) over the warp; afterwards lane l holds value l * COUNT / 32.
template <int COUNT, int STEP, int SIZE>
__device__ __forceinline__ float warp_sums(float (&v)[SIZE], int lane) {
  if constexpr (STEP == 0) {
    return v[0];
  } else if constexpr (COUNT == 1) {
    v[0] += __shfl_xor_sync(0xffffffffu, v[0], STEP);
    return warp_sums<1, STEP / 2>(v, lane);
  } else {
    const bool upper = lane & STEP;
#pragma unroll
    for (int i = 0; i < COUNT / 2; ++i) {
      const float kept = upper ? v[i + COUNT / 2] : v[i], sent = upper ? v[i] : v[i + COUNT / 2];
      v[i] = kept + __shfl_xor_sync(0xffffffffu, sent, STEP);
    }
    return warp_sums<COUNT / 2, STEP / 2>(v, lane);
  }
}

// Input values k .. k + 3 of one image from the window's first position (y, x) on; zero past the last.
// They lie side by side where the box in scratch (FLAT), or the image in device memory (WHOLE), is just what the layer reads.
template <class S, class In>
__device__ __forceinline__ float4 dense_values(const In& in, int n, int y, int x, int k) {
  if constexpr (S::FLAT) {
    if (k >= S::DEPTH) return float4{0.0f, 0.0f, 0.0f, 0.0f};
    return *reinterpret_cast<const float4*>(in.data + in.index(n, -in.c0, y, x) + k);
  } else if constexpr (S::WHOLE) {
    float v[4];
    const auto* image = in.data + (in.n0 + n) * (long long)S::DEPTH;
#pragma unroll
    for (int j = 0; j < 4; ++j) v[j] = k + j < S::DEPTH && in.n0 + n < in.batch ? image[k + j] : 0.0f;
    return float4{v[0], v[1], v[2], v[3]};
  } else {
    float v[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int tap = (k + j) % (S::KERNEL_Y * S::KERNEL_X), channel = (k + j) / (S::KERNEL_Y * S::KERNEL_X) - in.c0;
      v[j] = k + j < S::DEPTH ? in.at(n, channel, y + tap / S::KERNEL_X * S::DILATION_Y, x + tap % S::KERNEL_X * S::DILATION_X)
                              : 0.0f;
    }
    return float4{v[0], v[1], v[2], v[3]};
  }
}

template <class S, class Out, class In>
__device__ __forceinline__ void dense(const Out& out, const float* __restrict__ params, const In& in) {
  fill_border<S>(out);
  fill_outside<S>(out);
  const Pixel<S> pixel(out);
  if (!pixel.inside) return;
  const int row = pixel.y * S::STRIDE_Y + S::OFFSET_Y, column = pixel.x * S::STRIDE_X + S::OFFSET_X;
  constexpr int C_BLOCKS = (S::CHANNELS + S::BLOCK_C - 1) / S::BLOCK_C, SUMS = S::BLOCK_C * S::BLOCK_N;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
  for (int item = warp; item < C_BLOCKS * (S::IMAGES / S::BLOCK_N); item += blockDim.x / 32) {
    const int c = item % C_BLOCKS * S::BLOCK_C, n = item / C_BLOCKS * S::BLOCK_N;
    float sum[SUMS];
#pragma unroll
    for (int i = 0; i < SUMS; ++i) sum[i] = 0.0f;
#pragma unroll S::UNROLL
    for (int k = lane * 4; k < S::WEIGHT_PITCH; k += 128) {
      float4 w[S::BLOCK_C];
#pragma unroll
      for (int i = 0; i < S::BLOCK_C; ++i) {
        const int channel = out.c0 + (c + i < S::CHANNELS ? c + i : S::CHANNELS - 1);
        w[i] = __ldg(reinterpret_cast<const float4*>(params + S::WEIGHTS + channel * (long long)S::WEIGHT_PITCH + k));
      }
#pragma unroll
      for (int image = 0; image < S::BLOCK_N; ++image) {
        const float4 v = dense_values<S>(in, n + image, row, column, k);
#pragma unroll
        for (int i = 0; i < S::BLOCK_C; ++i) {
          float& s = sum[image * S::BLOCK_C + i];
          s = fmaf(v.w, w[i].w, fmaf(v.z, w[i].z, fmaf(v.y, w[i].y, fmaf(v.x, w[i].x, s))));
        }
      }
    }
    float v = warp_sums<SUMS, 16>(sum, lane);
    const int place = lane * SUMS / 32, image = n + place / S::BLOCK_C, channel = c + place % S::BLOCK_C;
    if (lane % (32 / SUMS) == 0 && channel < S::CHANNELS) {
      if (S::BIAS >= 0) v += __ldg(params + S::BIAS + out.c0 + channel);
      out.template store<S::INSIDE>(image, channel, pixel.y, pixel.x, S::epilogue(v, out.c0 + channel, params));
    }
  }
}
