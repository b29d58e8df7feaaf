// Buffers as a kernel sees them. Positions are relative to the box; (c0, y0, x0) is the box's first position in its tensor.

// Store a value; that of the last channel with zeros in the SPARE places behind it, which fill up the last plane.
template <int SPARE>
__device__ __forceinline__ void put_value(value_t* place, float v, bool last) {
  *place = rounded(v);
  if constexpr (SPARE > 0) {
    if (last) {
#pragma unroll
      for (int k = 1; k <= SPARE; ++k) place[k] = rounded(0.0f);
    }
  }
}

// A box in scratch. Positions outside the image hold PAD, whose bits PAD_BITS are. `first` is the first row that is made in this
// step of a strip. A line buffer has RING rows; row 0 lies in row `phase`. Planes hold BLOCK channels side by side.
template <int OFFSET, int IMAGE, int CHANNEL, int ROW_PITCH, unsigned PAD_BITS, int RING = 0, int BLOCK = 1, int CHANNELS = 0>
struct Scratch {
  static constexpr bool IN_SCRATCH = true;
  static constexpr int ROWS_HELD = RING;
  static constexpr int LANES = BLOCK, DEPTH = CHANNELS, PLANE = CHANNEL, PITCH = ROW_PITCH, SPARE = (BLOCK - CHANNELS % BLOCK) % BLOCK;
  value_t* data;
  int n0, batch, c0, y0, x0, height, width, first = 0, phase = 0;

  __device__ __forceinline__ int place(int y) const {
    const int row = y + phase;
    return RING == 0 ? y : row < RING ? row : row - RING;
  }
  __device__ __forceinline__ int row_start(int y) const { return place(y) * ROW_PITCH; }
  __device__ __forceinline__ int column_start(int n, int c, int x) const {
    return OFFSET + n * IMAGE + c / BLOCK * CHANNEL + x * BLOCK + c % BLOCK;
  }
  __device__ __forceinline__ int index(int n, int c, int y, int x) const { return column_start(n, c, x) + row_start(y); }
  __device__ __forceinline__ bool inside(int y, int x) const {
    return unsigned(y0 + y) < unsigned(height) && unsigned(x0 + x) < unsigned(width);
  }
  struct Row {
    const value_t* data;
    __device__ __forceinline__ bool holds(int) const { return true; }
    __device__ __forceinline__ float outside() const { return 0.0f; }
    __device__ __forceinline__ float operator()(int x) const { return value(data[x * BLOCK]); }
  };
  __device__ __forceinline__ Row row(int n, int c, int y, float) const { return Row{data + index(n, c, y, 0)}; }
  __device__ __forceinline__ float at(int n, int c, int y, int x) const { return value(data[index(n, c, y, x)]); }
  __device__ __forceinline__ float guarded(int n, int c, int y, int x, float padding) const {
    return inside(y, x) ? at(n, c, y, x) : padding;
  }
  __device__ __forceinline__ float padding() const { return __int_as_float(int(PAD_BITS)); }
  // Store a computed value; KNOWN_INSIDE saves the test where the box is known to lie in the image.
  template <bool KNOWN_INSIDE>
  __device__ __forceinline__ void store(int n, int c, int y, int x, float v) const {
    put(n, c, y, x, KNOWN_INSIDE || inside(y, x) ? v : padding());
  }
  __device__ __forceinline__ void pad(int n, int c, int y, int x) const { put(n, c, y, x, padding()); }
  __device__ __forceinline__ void put(int n, int c, int y, int x, float v) const {
    put_value<SPARE>(data + index(n, c, y, x), v, c == CHANNELS - 1);
  }
  // Whether any of `count` positions from (y, x) on has to be computed.
  __device__ __forceinline__ bool wanted(int, int y, int x, int count) const {
    return unsigned(y0 + y) < unsigned(height) && x0 + x < width && x0 + x + count > 0;
  }
};

// A tensor in device memory with CHANNELS channels, in dense planes of BLOCK channels side by side. Every access checks the
// image's border and the batch.
template <class T, int CHANNELS, int BLOCK = 1>
struct Global {
  static constexpr bool IN_SCRATCH = false;
  static constexpr int ROWS_HELD = 0;
  static constexpr int LANES = BLOCK, DEPTH = CHANNELS, PLANES = (CHANNELS + BLOCK - 1) / BLOCK, SPARE = PLANES * BLOCK - CHANNELS;
  T* data;
  int n0, batch, c0, y0, x0, height, width, first = 0;

  __device__ __forceinline__ long long index(int n, int c, int y, int x) const {
    const int channel = c0 + c;
    return ((((long long)(n0 + n) * PLANES + channel / BLOCK) * height + y0 + y) * width + x0 + x) * BLOCK + channel % BLOCK;
  }
  __device__ __forceinline__ bool inside(int y, int x) const {
    return unsigned(y0 + y) < unsigned(height) && unsigned(x0 + x) < unsigned(width);
  }
  struct Row {
    T* data;
    bool inside;
    int x0, width;
    float padding;
    __device__ __forceinline__ bool holds(int x) const { return inside && unsigned(x0 + x) < unsigned(width); }
    __device__ __forceinline__ float outside() const { return padding; }
    __device__ __forceinline__ float operator()(int x) const { return holds(x) ? value(data[x * BLOCK]) : padding; }
  };
  __device__ __forceinline__ Row row(int n, int c, int y, float padding) const {
    return Row{data + index(n, c, y, 0), unsigned(y0 + y) < unsigned(height) && n0 + n < batch, x0, width, padding};
  }
  __device__ __forceinline__ float at(int n, int c, int y, int x) const { return guarded(n, c, y, x, 0.0f); }
  __device__ __forceinline__ float guarded(int n, int c, int y, int x, float padding) const {
    return inside(y, x) && n0 + n < batch ? value(data[index(n, c, y, x)]) : padding;
  }
  template <bool KNOWN_INSIDE>
  __device__ __forceinline__ void store(int n, int c, int y, int x, float v) const {
    if ((KNOWN_INSIDE || inside(y, x)) && n0 + n < batch)
      put_value<SPARE>(data + index(n, c, y, x), v, c0 + c == CHANNELS - 1);
  }
  __device__ __forceinline__ float padding() const { return 0.0f; }
  __device__ __forceinline__ void pad(int, int, int, int) const {}
  __device__ __forceinline__ bool wanted(int n, int y, int x, int count) const {
    return n0 + n < batch && unsigned(y0 + y) < unsigned(height) && x0 + x < width && x0 + x + count > 0;
  }
};

// A buffer asked for channels of its tensor, and for positions of another box: (0, 0) there is (Y, X) here.
template <class In, int Y, int X>
struct Shifted {
  const In& in;
  __device__ __forceinline__ float at(int n, int c, int y, int x) const { return in.at(n, c - in.c0, y + Y, x + X); }
};
template <int Y, int X, class In>
__device__ __forceinline__ Shifted<In, Y, X> shifted(const In& in) { return Shifted<In, Y, X>{in}; }

// Channels FIRST and on of a buffer that is written.
template <int FIRST, class Out>
struct Channels {
  static constexpr int LANES = 1;  // that it is asked to pad at once
  const Out& out;
  int first;  // row
  __device__ __forceinline__ void pad(int n, int c, int y, int x) const { out.pad(n, FIRST + c, y, x); }
};
template <int FIRST, class Out>
__device__ __forceinline__ Channels<FIRST, Out> channels_from(const Out& out) {
  return Channels<FIRST, Out>{out, out.first};
}

// The larger and the smaller of two integers.
__device__ __forceinline__ int most(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ int least(int a, int b) { return a < b ? a : b; }

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

// The larger and the smaller of two values; NaN if the first is NaN. `larger` is NaN if either is, for pools.
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ float maximum(float v, float w) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(v), "f"(w));
  return larger;
}
__device__ __forceinline__ float minimum(float v, float w) {
  float smaller;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(smaller) : "f"(v), "f"(w));
  return smaller;
}
__device__ __forceinline__ float larger(float v, float best) { return maximum(v, best); }
#else
__device__ __forceinline__ float larger(float v, float best) { return v > best || v != v ? v : best; }
__device__ __forceinline__ float maximum(float v, float w) { return v < w ? w : v; }
__device__ __forceinline__ float minimum(float v, float w) { return v > w ? w : v; }
#endif

// Pointwise functions of epilogues. A comparison that NaN fails keeps NaN, as the reference does.
__device__ __forceinline__ float relu(float v) { return maximum(v, 0.0f); }
__device__ __forceinline__ float leaky_relu(float v, float slope) { return v < 0.0f ? v * slope : v; }
__device__ __forceinline__ float shallow_relu(float v, float slope) { return maximum(v, v * slope); }  // 0 < slope <= 1
__device__ __forceinline__ float clip(float v, float low, float high) { return minimum(maximum(v, low), high); }
__device__ __forceinline__ float sigmoid(float v) {
  const float e = expf(v < 0.0f ? v : -v);
  return (v < 0.0f ? e : 1.0f) / (1.0f + e);
}
__device__ __forceinline__ float tanh_activation(float v) { return tanhf(v); }
__device__ __forceinline__ float silu(float v) { return v * sigmoid(v); }
__device__ __forceinline__ float channel_affine(float v, float scale, float shift) { return fmaf(v, scale, shift); }

// Copy COUNT parameters (a multiple of 4, both sides aligned to 16 bytes) into scratch.
template <int COUNT>
__device__ __forceinline__ void stage_parameters(void* scratch, const float* __restrict__ params) {
  for (int i = threadIdx.x; i < COUNT / 4; i += blockDim.x)
    static_cast<float4*>(scratch)[i] = __ldg(reinterpret_cast<const float4*>(params) + i);
}

// Whether row y of a stage's box is made: in a strip the rows before the first are there already, or are not needed.
template <class S, class Out>
__device__ __forceinline__ bool is_made(const Out& out, int y) { return !S::WALKED || y >= out.first; }
// Whether any row is.
template <class S, class Out>
__device__ __forceinline__ bool is_idle(const Out& out) { return S::WALKED && out.first >= S::TOP + S::BOX_ROWS; }

// A position of a stage's region, counted by columns, rows, channels, images; relative to the box.
template <class S>
struct Position {
  int n, c, y, x;
  __device__ __forceinline__ explicit Position(int item) {
    x = S::COLUMN + item % S::COLUMNS;
    item /= S::COLUMNS;
    y = S::ROW + item % S::ROWS;
    item /= S::ROWS;
    c = item % S::CHANNELS;
    n = item / S::CHANNELS;
  }
  static constexpr int COUNT = S::IMAGES * S::CHANNELS * S::ROWS * S::COLUMNS;
};

// Where a layer that makes one pixel writes it, relative to the box; `inside` when the box holds that pixel.
template <class S>
struct Pixel {
  int y, x;
  bool inside;
  template <class Out>
  __device__ __forceinline__ explicit Pixel(const Out& out)
      : y(S::INSIDE ? S::ROW : -out.y0), x(S::INSIDE ? S::COLUMN : -out.x0),
        inside(S::INSIDE || (y >= (S::WALKED ? out.first : 0) && y < S::TOP + S::BOX_ROWS &&
                              unsigned(x) < unsigned(S::BOX_COLUMNS))) {}
};

// Write the padding value to the positions of the region outside the image, for layers that only write those inside.
template <class S, class Out>
__device__ __forceinline__ void fill_outside(const Out& out) {
  if constexpr (!S::INSIDE) {
    for (int item = threadIdx.x; item < Position<S>::COUNT; item += blockDim.x) {
      const Position<S> o(item);
      if (!out.inside(o.y, o.x) && is_made<S>(out, o.y)) out.pad(o.n, o.c, o.y, o.x);
    }
  }
}

// Write the padding value where the box is known to leave the image: rows above and below, columns left and right.
template <class S, class Out>
__device__ __forceinline__ void fill_border(const Out& out) {
  constexpr int ABOVE = (S::ROW - S::TOP) * S::BOX_COLUMNS;
  constexpr int BELOW = (S::TOP + S::BOX_ROWS - S::ROW - S::ROWS) * S::BOX_COLUMNS;
  constexpr int SIDES = S::BOX_COLUMNS - S::COLUMNS, BORDER = ABOVE + BELOW + SIDES * S::ROWS;
  if constexpr (BORDER > 0) {
    constexpr int PLANES = (S::CHANNELS + Out::LANES - 1) / Out::LANES;
    for (int item = threadIdx.x; item < BORDER * PLANES * S::IMAGES; item += blockDim.x) {
      const int plane = item / BORDER, place = item % BORDER;
      int y, x;
      if (place < ABOVE) {
        y = S::TOP + place / S::BOX_COLUMNS, x = place % S::BOX_COLUMNS;
      } else if (place < ABOVE + BELOW) {
        y = S::ROW + S::ROWS + (place - ABOVE) / S::BOX_COLUMNS, x = (place - ABOVE) % S::BOX_COLUMNS;
      } else {
        constexpr int WIDTH = SIDES > 0 ? SIDES : 1;
        const int side = (place - ABOVE - BELOW) % WIDTH;
        y = S::ROW + (place - ABOVE - BELOW) / WIDTH, x = side < S::COLUMN ? side : side + S::COLUMNS;
      }
      if (!is_made<S>(out, y)) continue;
      if constexpr (Out::LANES == 8) pad_plane(out, plane / PLANES, plane % PLANES, y, x);
      else out.pad(plane / PLANES, plane % PLANES, y, x);
    }
  }
}

// f(position) for every position of a stage's region that is made in this step, a thread each; the border is padded.
template <class S, class Out, class F>
__device__ __forceinline__ void each_position(const Out& out, F f) {
  if (is_idle<S>(out)) return;
  fill_border<S>(out);
  for (int item = threadIdx.x; item < Position<S>::COUNT; item += blockDim.x) {
    const Position<S> o(item);
    if (is_made<S>(out, o.y)) f(o);
  }
}

// The item-th block of a region: its first image, channel, row and column, and the first column that is its own (the last block
// of a row starts early instead of reading past the box).
template <class R, int BLOCK_N, int BLOCK_C, int BLOCK_X>
struct BlockPosition {
  static constexpr int X_BLOCKS = (R::COLUMNS + BLOCK_X - 1) / BLOCK_X, C_BLOCKS = R::CHANNELS / BLOCK_C;
  static constexpr int COUNT = X_BLOCKS * R::ROWS * C_BLOCKS * (R::IMAGES / BLOCK_N);
  int n, c, y, x, own;
  __device__ __forceinline__ explicit BlockPosition(int item) {
    const int block = item % X_BLOCKS * BLOCK_X, last = R::COLUMNS - BLOCK_X;
    own = R::COLUMN + block;
    x = R::COLUMN + (block < last ? block : last);
    y = R::ROW + item / X_BLOCKS % R::ROWS;
    c = item / (X_BLOCKS * R::ROWS) % C_BLOCKS * BLOCK_C;
    n = item / (X_BLOCKS * R::ROWS * C_BLOCKS) * BLOCK_N;
  }
  __device__ __forceinline__ bool owns(int column) const { return R::COLUMNS % BLOCK_X == 0 || column >= own; }
};

// block(position) for every block of the region of R that is made in this step, a thread each; the border is padded.
template <class R, int BLOCK_N, int BLOCK_C, int BLOCK_X, class Out, class F>
__device__ __forceinline__ void each_block(const Out& out, F block) {
  typedef BlockPosition<R, BLOCK_N, BLOCK_C, BLOCK_X> Block;
  if (is_idle<R>(out)) return;
  fill_border<R>(out);
#pragma unroll 1
  for (int item = threadIdx.x; item < Block::COUNT; item += blockDim.x) {
    const Block b(item);
    if (is_made<R>(out, b.y)) block(b);
  }
}
