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
  else return in.inside(y, x) && in.n0 + n < in.batch ? __ldg(in.data + in.index(n, c, y, x)) : value_t(0);
}

// The bits of channels c and c + 1, c even, in device memory; zero outside the image and behind the last channel.
template <class In>
__device__ __forceinline__ unsigned pair_bits(const In& in, int n, int c, int y, int x) {
  if (!in.inside(y, x) || in.n0 + n >= in.batch || in.c0 + c >= In::DEPTH) return 0u;
  if constexpr (In::LANES == 8) {
    return __ldg(reinterpret_cast<const unsigned*>(in.data + in.index(n, c, y, x)));
  } else {
    const unsigned high = in.c0 + c + 1 < In::DEPTH ? __ldg(in.data + in.index(n, c + 1, y, x)) : value_t(0);
    return __ldg(in.data + in.index(n, c, y, x)) | high << 16;
  }
}

// A pair of channels, c and the next, with zeros where they are behind the last one.
template <class Out>
__device__ __forceinline__ unsigned behind_last(int c, unsigned both) {
  if (Out::SPARE == 0 || c + 1 < Out::DEPTH) return both;
  return c >= Out::DEPTH ? 0u : both & 0xffffu;
}

// Write the padding value to all channels of a plane at one position.
template <class Out>
__device__ __forceinline__ void pad_plane(const Out& out, int n, int plane, int y, int x) {
  if constexpr (Out::IN_SCRATCH) {
    const unsigned padding = rounded_pair(out.padding(), out.padding());
    const int c = 8 * plane;
    *reinterpret_cast<uint4*>(out.data + out.index(n, c, y, x)) =
        uint4{behind_last<Out>(c, padding), behind_last<Out>(c + 2, padding), behind_last<Out>(c + 4, padding),
              behind_last<Out>(c + 6, padding)};
  }
}

// Where a lane stores pairs of channels of one column: channels c and c + 1, c even, and those of further groups of eight.
template <class Out>
struct PairColumn {
  const Out& out;
  int n, c, x;
  bool inside;
  value_t* at;
  __device__ __forceinline__ PairColumn(const Out& out_, int n_, int c_, int x_, bool known_inside)
      : out(out_), n(n_), c(c_), x(x_), inside(known_inside || unsigned(out_.x0 + x_) < unsigned(out_.width)) {
    if constexpr (Out::IN_SCRATCH) at = out.data + out.column_start(n, c, x);
    else inside = inside && out.n0 + n < out.batch;
  }
  // Store a rounded pair of row y, if it is `kept`, `group` groups of eight channels on; places behind the last channel get zeros.
  __device__ __forceinline__ void store(bool kept, int y, bool row_inside, int group, unsigned both) const {
    const int channel = c + 8 * group, known = Out::IN_SCRATCH ? channel : out.c0 + channel;
    const bool in_image = inside && row_inside;
    if (Out::IN_SCRATCH && !in_image) both = rounded_pair(out.padding(), out.padding());
    if constexpr (Out::LANES == 8) {
      both = behind_last<Out>(known, both);
      if constexpr (Out::IN_SCRATCH) {
        if (kept) *reinterpret_cast<unsigned*>(at + out.row_start(y) + group * Out::PLANE) = both;
      } else if (kept && in_image) {
        *reinterpret_cast<unsigned*>(out.data + out.index(n, channel, y, x)) = both;
      }
    } else if constexpr (Out::IN_SCRATCH) {
      value_t* place = at + out.row_start(y) + 8 * group * Out::PLANE;
      if (kept && known < Out::DEPTH) place[0] = value_t(both);
      if (kept && known + 1 < Out::DEPTH) place[Out::PLANE] = value_t(both >> 16);
    } else if (kept && in_image) {
      if (known < Out::DEPTH) out.data[out.index(n, channel, y, x)] = value_t(both);
      if (known + 1 < Out::DEPTH) out.data[out.index(n, channel + 1, y, x)] = value_t(both >> 16);
    }
  }
};

// Eight channels of a pixel.
struct Octet {
  float v[8];
};
__device__ __forceinline__ Octet octet_of(const uint4& words) {
  const unsigned both[4] = {words.x, words.y, words.z, words.w};
  Octet o;
#pragma unroll
  for (int i = 0; i < 8; ++i) o.v[i] = value(value_t(both[i / 2] >> i % 2 * 16));
  return o;
}
__device__ __forceinline__ Octet octet_of(float v) { return Octet{{v, v, v, v, v, v, v, v}}; }
// Eight parameters, aligned to 16 bytes.
__device__ __forceinline__ Octet octet_of(const float* __restrict__ params) {
  const float4 low = __ldg(reinterpret_cast<const float4*>(params)), high = __ldg(reinterpret_cast<const float4*>(params) + 1);
  return Octet{{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}
template <class In>
__device__ __forceinline__ Octet load_octet(const In& in, int n, int c, int y, int x, float padding = 0.0f) {
  if constexpr (!In::IN_SCRATCH)
    if (!in.inside(y, x) || in.n0 + n >= in.batch) return octet_of(padding);
  const auto* at = in.data + in.index(n, c, y, x);
  if constexpr (In::LANES == 8) {
    return octet_of(*reinterpret_cast<const uint4*>(at));
  } else {  // a tensor in device memory without planes
    const long long pitch = (long long)in.height * in.width;
    Octet o;
#pragma unroll
    for (int i = 0; i < 8; ++i) o.v[i] = In::DEPTH % 8 == 0 || in.c0 + c + i < In::DEPTH ? value(at[i * pitch]) : 0.0f;
    return o;
  }
}
template <class In, int Y, int X>
__device__ __forceinline__ Octet load_octet(const Shifted<In, Y, X>& s, int n, int c, int y, int x) {
  return load_octet(s.in, n, c - s.in.c0, y + Y, x + X);
}
// The eight channels in column x of a row that starts at channel c, a multiple of eight.
template <class Row>
__device__ __forceinline__ Octet octet_in(const Row& row, int x) {
  return row.holds(x) ? octet_of(*reinterpret_cast<const uint4*>(row.data + x * 8)) : octet_of(row.outside());
}

// Store channels c to c + 7 of a position through the epilogue; zeros behind the last channel.
template <class S, class Out>
__device__ __forceinline__ void store_octet(const Out& out, const float* __restrict__ params, int n, int c, int y, int x,
                                            const Octet& o) {
  const bool inside = S::INSIDE || out.inside(y, x);
  if (!Out::IN_SCRATCH && !(inside && out.n0 + n < out.batch)) return;
  const int channel = out.c0 + c;
  auto* at = out.data + out.index(n, c, y, x);
  if constexpr (Out::LANES == 1) {  // a tensor in device memory without planes
    const long long pitch = (long long)out.height * out.width;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (Out::DEPTH % 8 == 0 || channel + i < Out::DEPTH) at[i * pitch] = rounded(S::epilogue(o.v[i], channel + i, params));
    return;
  }
  unsigned both[4];
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const float low = S::epilogue(o.v[i], channel + i, params), high = S::epilogue(o.v[i + 1], channel + i + 1, params);
    const unsigned made = inside ? rounded_pair(low, high) : rounded_pair(out.padding(), out.padding());
    both[i / 2] = behind_last<Out>((Out::IN_SCRATCH ? c : channel) + i, made);
  }
  *reinterpret_cast<uint4*>(at) = uint4{both[0], both[1], both[2], both[3]};
}

// A region with its channels rounded up to whole planes.
template <class R>
struct WholePlanes : R {
  static constexpr int CHANNELS = (R::CHANNELS + 7) / 8 * 8;
};

// f(position) for every eight channels of BLOCK_X columns of a stage's region, a thread each; the border is padded.
template <class S, int BLOCK_X, class Out, class F>
__device__ __forceinline__ void each_octet(const Out& out, F f) {
  typedef BlockPosition<WholePlanes<S>, 1, 8, BLOCK_X> Block;
  if (is_idle<S>(out)) return;
  fill_border<S>(out);
#pragma unroll 1
  for (int item = threadIdx.x; item < Block::COUNT; item += blockDim.x) {
    const Block b(item);
    if (is_made<S>(out, b.y)) f(b);
  }
}

// The sum of some tensors, or one tensor that an epilogue alone changes, eight channels at a time.
template <class S, class Out, class First, class... Rest>
__device__ __forceinline__ void sum_planes(const Out& out, const float* __restrict__ params, const First& first,
                                           const Rest&... rest) {
  each_octet<S, 1>(out, [&](const auto& o) {
    const int channel = out.c0 + o.c;
    Octet sum = load_octet(first, o.n, channel, o.y, o.x);
    auto add = [&](const Octet& other) {
#pragma unroll
      for (int i = 0; i < 8; ++i) sum.v[i] += other.v[i];
    };
    (add(load_octet(rest, o.n, channel, o.y, o.x)), ...);
    store_octet<S>(out, params, o.n, o.c, o.y, o.x, sum);
  });
}

// As `upsample` and `concat`, eight channels at a time.
template <class S, class Out, class In>
__device__ __forceinline__ void upsample_planes(const Out& out, const float* __restrict__ params, const In& in) {
  each_octet<S, 1>(out, [&](const auto& o) {
    store_octet<S>(out, params, o.n, o.c, o.y, o.x,
                   load_octet(in, o.n, out.c0 + o.c - in.c0, (o.y + S::PHASE_Y) / S::FACTOR_Y + S::OFFSET_Y,
                              (o.x + S::PHASE_X) / S::FACTOR_X + S::OFFSET_X));
  });
}
template <class S, class Out, class In>
__device__ __forceinline__ void concat_planes(const Out& out, const float* __restrict__ params, const In& in) {
  each_octet<S, 1>(channels_from<S::FIRST>(out), [&](const auto& o) {
    store_octet<S>(out, params, o.n, S::FIRST + o.c, o.y, o.x, load_octet(in, o.n, o.c, o.y, o.x));
  });
}
