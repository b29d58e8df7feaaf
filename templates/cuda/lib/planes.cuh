// Tensors in planes of eight channels, 16 bytes a pixel.

// Copy a box of planes into scratch, 16 bytes at a time; zeros outside the image.
template <class S, class Out, class In>
__device__ __forceinline__ void copy_planes(const Out& out, const In& in) {
  constexpr int PLANES = (S::CHANNELS + 7) / 8, COUNT = S::IMAGES * PLANES * S::ROWS * S::COLUMNS;
  if (is_idle<S>(out)) return;
  fill_border<S>(out);
  for (int item = threadIdx.x; item < COUNT; item += blockDim.x) {
    const int x = S::COLUMN + item % S::COLUMNS, y = S::ROW + item / S::COLUMNS % S::ROWS;
    const int plane = item / (S::COLUMNS * S::ROWS) % PLANES, n = item / (S::COLUMNS * S::ROWS * PLANES);
    if (!is_made<S>(out, y)) continue;
    const bool inside = in.inside(y, x) && in.n0 + n < in.batch;
    copy_async_16(out.data + out.index(n, 8 * plane, y, x), inside ? in.data + in.index(n, 8 * plane, y, x) : in.data, inside);
  }
  copy_async_commit();
  copy_async_wait<0>();
}

// The bits of one value; zero outside the image.
template <class In>
__device__ __forceinline__ unsigned bits(const In& in, int n, int c, int y, int x) {
  if constexpr (In::IN_SCRATCH) return in.data[in.index(n, c, y, x)];
  else return in.inside(y, x) && in.n0 + n < in.batch ? in.data[in.index(n, c, y, x)] : 0u;
}

// The bits of channels c and c + 1, c even, in device memory; zero outside the image and behind the last channel.
template <class In>
__device__ __forceinline__ unsigned pair_bits(const In& in, int n, int c, int y, int x) {
  if (!in.inside(y, x) || in.n0 + n >= in.batch || in.c0 + c >= In::DEPTH) return 0u;
  if constexpr (In::LANES == 8) {
    return *reinterpret_cast<const unsigned*>(in.data + in.index(n, c, y, x));
  } else {
    const unsigned high = in.c0 + c + 1 < In::DEPTH ? in.data[in.index(n, c + 1, y, x)] : 0u;
    return in.data[in.index(n, c, y, x)] | high << 16;
  }
}

// Store channels c and c + 1, c even; places behind the last channel get zeros, where there are any.
template <bool KNOWN_INSIDE, class Out>
__device__ __forceinline__ void store_pair(const Out& out, int n, int c, int y, int x, float low, float high) {
  if constexpr (Out::LANES == 8) {
    const int channel = Out::IN_SCRATCH ? c : out.c0 + c;
    const bool inside = KNOWN_INSIDE || out.inside(y, x);
    unsigned both = rounded_pair(inside ? low : out.padding(), inside ? high : out.padding());
    if (Out::SPARE > 0 && channel + 1 >= Out::DEPTH) both = channel >= Out::DEPTH ? 0u : both & 0xffffu;
    if (Out::IN_SCRATCH || (inside && out.n0 + n < out.batch))
      *reinterpret_cast<unsigned*>(out.data + out.index(n, c, y, x)) = both;
  } else {
    const int channels = Out::IN_SCRATCH ? Out::DEPTH : Out::DEPTH - out.c0;
    if (c < channels) out.template store<KNOWN_INSIDE>(n, c, y, x, low);
    if (c + 1 < channels) out.template store<KNOWN_INSIDE>(n, c + 1, y, x, high);
  }
}
