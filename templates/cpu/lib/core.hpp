// Vectors and buffers as a kernel sees them. Positions are relative to the box; (c0, y0, x0) is the box's first position in its
// tensor, n0 its first image.
#include <cmath>
#include <cstdint>

#define INLINE inline __attribute__((always_inline))

template <int LANES>
struct VectorOf {
  typedef float type __attribute__((vector_size(LANES * 4)));
};
template <>
struct VectorOf<1> {
  typedef float type;
};
template <int LANES>
using Vector = typename VectorOf<LANES>::type;

template <class V>
INLINE V load(const float* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
INLINE void store(float* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The first `count` lanes, from elements `step` apart.
template <int LANES>
INLINE Vector<LANES> gather(const float* p, int64_t step, int count) {
  float lane[LANES] = {};
  for (int i = 0; i < LANES; ++i)  // a bound the compiler knows
    if (i < count) lane[i] = p[i * step];
  return load<Vector<LANES>>(lane);
}

// A value that is loaded once: compilers else read it again for every product, and loads are what there is least of.
template <class V>
INLINE V in_register(V v) {
  if constexpr (sizeof(V) <= __BIGGEST_ALIGNMENT__) {  // what the CPU has registers for
#if defined(__x86_64__)
    asm("" : "+v"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
  }
  return v;
}

INLINE float infinity() { return __builtin_inff(); }
INLINE float from_bits(uint32_t bits) {
  float v;
  __builtin_memcpy(&v, &bits, 4);
  return v;
}

// a * b + sum, rounded once where the CPU can. GCC fuses the vector form by itself, everywhere; Clang does so or not by what is
// around it, unless told, which versions before 17 cannot be without losing speed. For floats it has to be said in both: a loop
// that sums float products may be made into vector products and single sums, which round twice.
template <class A, class V>
INLINE V multiply_add(A a, V b, V sum) {
#if defined(__clang__) && defined(__has_builtin)
#if __has_builtin(__builtin_elementwise_fma) && (defined(__FMA__) || defined(__ARM_FEATURE_FMA))
  return __builtin_elementwise_fma(a - V{}, b, sum);
#endif
#endif
  return sum + a * b;
}
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
INLINE float multiply_add(float a, float b, float sum) { return __builtin_fmaf(a, b, sum); }
#endif

// Where the weights of channel `c` of a group begin: all products of WEIGHT_LANES channels lie side by side.
template <class S>
INLINE int weight_place(int c) {
  return c / S::WEIGHT_LANES * S::VECTOR_SIZE + c % S::WEIGHT_LANES;
}

INLINE int least(int a, int b) { return a < b ? a : b; }
INLINE int most(int a, int b) { return a > b ? a : b; }

// A box in scratch. Positions outside the image hold PAD. `first` is the first row that is made in this step of a strip. A line
// buffer has RING rows; row 0 lies in row `phase`.
template <int OFFSET, int IMAGE, int CHANNEL, int ROW_PITCH, int COLUMN_PITCH, uint32_t PAD, int RING = 0>
struct Scratch {
  float* data;
  int n0, batch, c0, y0, x0, height, width, first = 0, phase = 0;
  static constexpr bool IS_GLOBAL = false;

  INLINE int place(int y) const {
    const int row = y + phase;
    return RING == 0 ? y : row < RING ? row : row - RING;
  }
  INLINE float* pointer(int n, int c, int y, int x) const {
    return data + (OFFSET + n * IMAGE + c * CHANNEL + place(y) * ROW_PITCH + x * COLUMN_PITCH);
  }
  INLINE float at(int n, int c, int y, int x) const { return *pointer(n, c, y, x); }
  // One channel of a row from a position on. Its address is kept from the compiler, which would otherwise keep one for every
  // value that a block reads, more than there are registers.
  struct Row {
    const float* start;
    INLINE float at(int n, int x) const { return start[n * IMAGE + x * COLUMN_PITCH]; }
    INLINE Row from(int x) const { return Row{start + x * COLUMN_PITCH}.hidden(); }
    INLINE void next_channel() { *this = Row{start + CHANNEL}.hidden(); }
    INLINE Row hidden() const {
      Row same = *this;
      asm("" : "+r"(same.start));
      return same;
    }
  };
  INLINE Row row(int n, int c, int y, int x) const { return Row{pointer(n, c, y, x)}; }
  template <int LANES>
  INLINE Vector<LANES> lanes(int n, int c, int y, int x) const {
    return load<Vector<LANES>>(pointer(n, c, y, x));
  }
  // The first `count` lanes; the others hold anything.
  template <int LANES>
  INLINE Vector<LANES> some(int n, int c, int y, int x, int count) const {
    const float* p = pointer(n, c, y, x);
    return count >= LANES || c + LANES <= COLUMN_PITCH ? load<Vector<LANES>>(p) : gather<LANES>(p, 1, count);
  }
  template <int LANES>
  INLINE Vector<LANES> padded(int n, int c, int y, int x, int count) const {
    return some<LANES>(n, c, y, x, count);
  }
  // The first `count` lanes of v. The others may be written too, where the position has room for them: what belongs there comes
  // later, since channels are made in order, or is never read.
  template <int LANES>
  INLINE void put(int n, int c, int y, int x, Vector<LANES> v, int count) const {
    float* p = pointer(n, c, y, x);
    if (count >= LANES || c + LANES <= COLUMN_PITCH) {
      store(p, v);
    } else {
      float lane[LANES];
      store(lane, v);
      for (int i = 0; i < LANES; ++i)  // a bound the compiler knows
        if (i < count) p[i] = lane[i];
    }
  }
  INLINE void put(int n, int c, int y, int x, float v) const { *pointer(n, c, y, x) = v; }
  INLINE void pad(int n, int c, int y, int x) const { *pointer(n, c, y, x) = from_bits(PAD); }
};

// A tensor in memory, dense, with CHANNELS channels, NHWC or NCHW. Reads outside the image or the batch give zero.
template <class T, int CHANNELS, bool CHANNELS_LAST>
struct Global {
  T* data;
  int n0, batch, c0, y0, x0, height, width, first = 0;
  static constexpr bool IS_GLOBAL = true;

  INLINE T* pointer(int n, int c, int y, int x) const {
    const int64_t row = (int64_t)(n0 + n) * (CHANNELS_LAST ? height : CHANNELS);
    return CHANNELS_LAST ? data + ((row + y0 + y) * width + x0 + x) * CHANNELS + c0 + c
                         : data + ((row + c0 + c) * height + y0 + y) * width + x0 + x;
  }
  INLINE bool inside(int n, int c, int y, int x) const {
    return unsigned(y0 + y) < unsigned(height) && unsigned(x0 + x) < unsigned(width) && n0 + n < batch && c0 + c < CHANNELS;
  }
  INLINE float at(int n, int c, int y, int x) const { return inside(n, c, y, x) ? *pointer(n, c, y, x) : 0.0f; }
  struct Row {
    const Global* in;
    int n0, c0, y, x0;
    INLINE float at(int n, int x) const { return in->at(n0 + n, c0, y, x0 + x); }
    INLINE Row from(int x) const { return Row{in, n0, c0, y, x0 + x}; }
    INLINE void next_channel() { ++c0; }
  };
  INLINE Row row(int n, int c, int y, int x) const { return Row{this, n, c, y, x}; }
  template <int LANES>
  INLINE Vector<LANES> lanes(int n, int c, int y, int x) const {
    float lane[LANES];
    for (int i = 0; i < LANES; ++i) lane[i] = at(n, c + i, y, x);
    return load<Vector<LANES>>(lane);
  }
  // The first `count` lanes of a position inside the image and the batch; the others hold anything.
  template <int LANES>
  INLINE Vector<LANES> some(int n, int c, int y, int x, int count) const {
    const T* p = pointer(n, c, y, x);
    if (CHANNELS_LAST && count >= LANES) return load<Vector<LANES>>(p);
    return gather<LANES>(p, CHANNELS_LAST ? 1 : (int64_t)height * width, count);
  }
  // The same for any position.
  template <int LANES>
  INLINE Vector<LANES> padded(int n, int c, int y, int x, int count) const {
    return inside(n, c, y, x) ? some<LANES>(n, c, y, x, count) : Vector<LANES>{};
  }
  template <int LANES>
  INLINE void put(int n, int c, int y, int x, Vector<LANES> v, int count) const {
    float* p = pointer(n, c, y, x);
    if (CHANNELS_LAST && count >= LANES) {
      store(p, v);
      return;
    }
    float lane[LANES];
    store(lane, v);
    if (CHANNELS_LAST) {
      for (int i = 0; i < LANES; ++i)  // GCC 12 makes a copy of a shorter loop, and warns that it reads beyond the lanes
        if (i < count) p[i] = lane[i];
      return;
    }
    const int64_t step = (int64_t)height * width;
    for (int i = 0; i < least(count, LANES); ++i) p[i * step] = lane[i];
  }
  INLINE void put(int n, int c, int y, int x, float v) const { *pointer(n, c, y, x) = v; }
  INLINE void pad(int, int, int, int) const {}
};

// A buffer asked for channels of its tensor, and for positions of another box: (0, 0) there is (Y, X) here. Those who ask keep
// to the image and the batch, so nothing is checked.
template <class In, int Y, int X>
struct Shifted {
  const In& in;
  INLINE float at(int n, int c, int y, int x) const { return *in.pointer(n, c - in.c0, y + Y, x + X); }
  template <int LANES>
  INLINE Vector<LANES> some(int n, int c, int y, int x, int count) const {
    return in.template some<LANES>(n, c - in.c0, y + Y, x + X, count);
  }
};
template <int Y, int X, class In>
INLINE Shifted<In, Y, X> shifted(const In& in) {
  return Shifted<In, Y, X>{in};
}

// The part of what a stage makes in this step that lies inside the image and the batch, relative to the stage's box.
struct Region {
  int images, top, bottom, left, right;
};
template <class S, class Out>
INLINE Region clip_region(const Out& out) {
  const int bottom = least(S::TOP + S::BOX_ROWS, out.height - out.y0), right = least(S::BOX_COLUMNS, out.width - out.x0);
  return Region{least(S::IMAGES, out.batch - out.n0), most(out.first, -out.y0), bottom, most(0, -out.x0), right};
}

// Write the padding value to channels [FIRST, FIRST + CHANNELS) of the positions of this step outside the region.
template <class S, class Out>
INLINE void fill_border(const Out& out, const Region& r, int first = 0) {
  if (Out::IS_GLOBAL) return;
  for (int n = 0; n < r.images; ++n)
    for (int y = out.first; y < S::TOP + S::BOX_ROWS; ++y) {
      const bool row_inside = y >= r.top && y < r.bottom;
      for (int x = 0; x < S::BOX_COLUMNS; ++x) {
        if (row_inside && x == r.left && r.right > r.left) x = r.right;
        if (x >= S::BOX_COLUMNS) break;
        for (int c = 0; c < S::CHANNELS; ++c) out.pad(n, first + c, y, x);
      }
    }
}

// A number as a type, for functions that need it while they are compiled.
template <int VALUE>
struct Constant {
  static constexpr int value = VALUE;
};

// A value as it would come back from memory: a product in it is not fused with a sum that follows.
template <class V>
INLINE V unfused(V v) {
  asm("" : "+m"(v));
  return v;
}

// The larger of two values; the first when it is NaN.
template <class V>
INLINE V larger(V v, V best) {
  const V found = v > best ? v : best;
  return v != v ? v : found;
}

// Pointwise functions of epilogues, on floats and vectors. A comparison that NaN fails keeps NaN, as the reference does.
template <class V>
INLINE V relu(V v) {
  const V zero = V{};
  return v < zero ? zero : v;
}
template <class V, class W>
INLINE V leaky_relu(V v, W slope) {
  const V zero = V{}, scaled = v * slope;
  return v < zero ? scaled : v;
}
// The same for 0 < slope <= 1.
template <class V, class W>
INLINE V shallow_relu(V v, W slope) {
  const V scaled = v * slope;
  return v < scaled ? scaled : v;
}
template <class V>
INLINE V clip(V v, float low, float high) {
  const V least_value = V{} + low, most_value = V{} + high;
  const V limited = v > most_value ? most_value : v;
  return limited < least_value ? least_value : limited;  // one after the other: a minimum and a maximum, no branch
}
template <class V, class W>
INLINE V channel_affine(V v, W scale, W shift) {
  return multiply_add(v, scale, shift);
}
template <class V, class F>
INLINE V each_lane(V v, F f) {
  float lane[sizeof(V) / 4];
  store(lane, v);
  for (unsigned i = 0; i < sizeof(V) / 4; ++i) lane[i] = f(lane[i]);
  return load<V>(lane);
}
INLINE float sigmoid_of(float v) {
  const float e = std::exp(v < 0.0f ? v : -v);
  return (v < 0.0f ? e : 1.0f) / (1.0f + e);
}
template <class V>
INLINE V sigmoid(V v) {
  return each_lane(v, sigmoid_of);
}
template <class V>
INLINE V silu(V v) {
  return v * sigmoid(v);
}
template <class V>
INLINE V tanh_activation(V v) {
  return each_lane(v, [](float x) { return std::tanh(x); });
}
