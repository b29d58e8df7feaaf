// Convolution by matrix instructions. A warp computes 16 x FRAGMENTS columns, BLOCK_Y rows and 8 x BLOCK_C channels at once: a row
// of a fragment is a column of the image, or of several images side by side. The sum of one output runs over filter columns,
// groups of 16 input channels, filter rows in this order, whatever the blocks, from the bias on; with few input channels over
// filter rows, filter columns and channels, 16 products at a time.

template <class S>
using FragmentSums = float[S::FRAGMENTS][S::BLOCK_Y][S::BLOCK_C][4];

// Columns of a region, counted over its images: where number j lies. Those behind the last are not `real` and stand for it.
template <class R>
struct Column {
  int n, x;
  bool real;
  __device__ __forceinline__ explicit Column(int j) : real(j < R::IMAGES * R::COLUMNS) {
    const int k = real ? j : R::IMAGES * R::COLUMNS - 1;
    n = R::IMAGES == 1 ? 0 : k / R::COLUMNS;
    x = R::COLUMN + k - n * R::COLUMNS;
  }
};

// The task-th piece of a region: its first column, row and group of eight channels, and the first row that is its own (the last
// piece starts early instead of reading past the box).
template <class R, int COLUMNS, int BLOCK_Y, int BLOCK_C>
struct Task {
  static constexpr int X = (R::IMAGES * R::COLUMNS + COLUMNS - 1) / COLUMNS, Y = (R::ROWS + BLOCK_Y - 1) / BLOCK_Y;
  static constexpr int COUNT = X * Y * ((R::CHANNELS + 7) / 8 / BLOCK_C);
  int column, y, own, group;
  __device__ __forceinline__ explicit Task(int task) {
    const int row = task / X % Y * BLOCK_Y, last = R::ROWS - BLOCK_Y;
    column = task % X * COLUMNS;
    own = R::ROW + row;
    y = R::ROW + (row < last ? row : last);
    group = task / (X * Y) * BLOCK_C;
  }
  __device__ __forceinline__ bool owns(int row) const { return R::ROWS % BLOCK_Y == 0 || row >= own; }
};

// A warp's first task: the tasks of stages that run side by side are dealt out as one row of cards, of which TURN are gone.
template <int TURN>
__device__ __forceinline__ int first_task() {
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  return TURN == 0 ? warp : (warp + warps - TURN % warps) % warps;
}

// Weights of BLOCK_C groups of channels: a lane's two registers of each.
template <class S>
__device__ __forceinline__ void load_groups(unsigned (&w)[S::BLOCK_C][2], const uint2* weights) {
#pragma unroll
  for (int k = 0; k < S::BLOCK_C; ++k) {
    const uint2 v = weights[k * 32];
    w[k][0] = v.x, w[k][1] = v.y;
  }
}

// Products of one fragment: its first eight columns alone where the other eight are past the last channel.
template <class S>
__device__ __forceinline__ void multiply_groups(float (&sum)[S::BLOCK_C][4], const unsigned (&a)[4],
                                                const unsigned (&w)[S::BLOCK_C][2], bool half) {
#pragma unroll
  for (int k = 0; k < S::BLOCK_C; ++k) {
    if (half) {
      const unsigned first[2] = {a[0], a[1]};
      multiply(sum[k], first, w[k][0]);
    } else {
      multiply(sum[k], a, w[k]);
    }
  }
}

// The position of a box of `count` that is nearest to i.
__device__ __forceinline__ int clamped(int i, int count) { return i < 0 ? 0 : i < count ? i : count - 1; }

// Fragments of 16 columns x 16 channels of a buffer, `first` and on. `place(f, m)` is the column of row m of fragment f.
// CLAMPED: taps whose weights are zero may lie outside the box, and read its nearest position instead.
template <class S, class In>
struct Fragments {
  const In& in;
  int first;
  const value_t* at[S::FRAGMENTS];  // in scratch: the row of the lane, in its first plane
  int n[S::FRAGMENTS][2], x[S::FRAGMENTS][2];  // in device memory: rows lane / 4 and 8 below; CLAMPED in scratch: that of the lane

  template <class Place>
  __device__ __forceinline__ Fragments(const In& in_, int first_, const Place& place) : in(in_), first(first_) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int f = 0; f < S::FRAGMENTS; ++f) {
      if constexpr (In::IN_SCRATCH) {
        const auto p = place(f, lane % 16);
        x[f][0] = p.x * S::STRIDE_X + S::OFFSET_X;
        at[f] = in.data + in.column_start(p.n, first, S::CLAMPED ? 0 : x[f][0]);
      } else {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const auto p = place(f, lane / 4 + 8 * h);
          n[f][h] = p.n, x[f][h] = p.x * S::STRIDE_X + S::OFFSET_X;
        }
      }
    }
  }

  // Channels 16 `pair` and on of fragment f, row y, `shift` columns on; `half`: eight of them alone.
  __device__ __forceinline__ void load(unsigned (&a)[4], int f, int pair, int y, int shift, bool half) const {
    const int lane = threadIdx.x % 32;
    if constexpr (In::IN_SCRATCH) {
      const int line = S::CLAMPED ? clamped(y, S::BOX_Y) : y, column = S::CLAMPED ? clamped(x[f][0] + shift, S::BOX_X) : shift;
      const value_t* row = at[f] + in.row_start(line) + column * 8 + pair * 2 * In::PLANE;
      if (half) {
        unsigned first[2];
        load_matrix_x2(first, row);
        a[0] = first[0], a[1] = first[1];
      } else {
        load_matrix_x4(a, row + lane / 16 * In::PLANE);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int c = first + 16 * pair + 8 * (i / 2) + lane % 4 * 2;
        a[i] = half && i >= 2 ? 0u : pair_bits(in, n[f][i % 2], c, y, x[f][i % 2] + shift);
      }
    }
  }
};

// Whether input row i, counted from the first under the block, is under filter row ky of an output row of the block.
template <class S>
__device__ constexpr bool meets(int i, int ky) {
  const int step = i - ky * S::DILATION_Y;
  return step >= 0 && step % S::STRIDE_Y == 0 && step / S::STRIDE_Y < S::BLOCK_Y;
}
template <class S>
__device__ constexpr bool meets_any(int i) {
  for (int ky = 0; ky < S::KERNEL_Y; ++ky)
    if (meets<S>(i, ky)) return true;
  return false;
}

// The products of a block, channels in planes: each input row is loaded once for all filter rows (REUSED), or once for each.
// `first` is the first input channel of the block's group.
template <class S, class In, class Place>
__device__ __forceinline__ void multiply_planes(FragmentSums<S>& sum, const In& in, const uint2* weights, int first, int y,
                                                const Place& place) {
  constexpr int PLANES = (S::GROUP_IN + 7) / 8, PAIRS = (PLANES + 1) / 2;
  constexpr int ROWS = (S::BLOCK_Y - 1) * S::STRIDE_Y + (S::KERNEL_Y - 1) * S::DILATION_Y + 1;
  const Fragments<S, In> fragments(in, first, place);
#pragma unroll S::UNROLL
  for (int step = 0; step < S::KERNEL_X * PAIRS; ++step) {
    const int pair = step % PAIRS, shift = step / PAIRS * S::DILATION_X;
    const bool half = PLANES % 2 == 1 && pair == PAIRS - 1;
    const uint2* w = weights + step * S::KERNEL_Y * S::WEIGHT_PITCH;
    if constexpr (S::REUSED) {
      unsigned b[S::KERNEL_Y][S::BLOCK_C][2];
#pragma unroll
      for (int ky = 0; ky < S::KERNEL_Y; ++ky) load_groups<S>(b[ky], w + ky * S::WEIGHT_PITCH);
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
        if (!meets_any<S>(i)) continue;
#pragma unroll
        for (int f = 0; f < S::FRAGMENTS; ++f) {
          unsigned a[4];
          fragments.load(a, f, pair, y + i, shift, half);
#pragma unroll
          for (int ky = 0; ky < S::KERNEL_Y; ++ky)
            if (meets<S>(i, ky)) multiply_groups<S>(sum[f][(i - ky * S::DILATION_Y) / S::STRIDE_Y], a, b[ky], half);
        }
      }
    } else {
#pragma unroll 2
      for (int ky = 0; ky < S::KERNEL_Y; ++ky) {
        unsigned b[S::BLOCK_C][2];
        load_groups<S>(b, w + ky * S::WEIGHT_PITCH);
#pragma unroll
        for (int r = 0; r < S::BLOCK_Y; ++r)
#pragma unroll
          for (int f = 0; f < S::FRAGMENTS; ++f) {
            unsigned a[4];
            fragments.load(a, f, pair, y + r * S::STRIDE_Y + ky * S::DILATION_Y, shift, half);
            multiply_groups<S>(sum[f][r], a, b, half);
          }
      }
    }
  }
}

// Products 2 (lane % 4) and the next of a step, and those eight on: their input channels and positions under the window.
template <class S>
struct Taps {
  static constexpr int DEPTH = S::KERNEL_Y * S::KERNEL_X * S::GROUP_IN;
  int c[4], y[4], x[4];
  bool real[4];
  __device__ __forceinline__ explicit Taps(int step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int given = step * 16 + threadIdx.x % 4 * 2 + i % 2 + i / 2 * 8;
      real[i] = (step + 1) * 16 <= DEPTH || given < DEPTH;
      const int k = real[i] ? given : 0;
      c[i] = k % S::GROUP_IN;
      x[i] = k / S::GROUP_IN % S::KERNEL_X * S::DILATION_X;
      y[i] = k / (S::GROUP_IN * S::KERNEL_X) * S::DILATION_Y;
    }
  }
};

// The products of a block with few input channels: filter taps and channels are one axis of products.
template <class S, class In, class Place>
__device__ __forceinline__ void multiply_taps(FragmentSums<S>& sum, const In& in, const uint2* weights, int y, const Place& place) {
  constexpr int DEPTH = Taps<S>::DEPTH, STEPS = (DEPTH + 15) / 16;
  constexpr bool FIXED = In::IN_SCRATCH && In::ROWS_HELD == 0;  // a tap is the same distance away everywhere
  const int lane = threadIdx.x % 32;
#pragma unroll S::UNROLL
  for (int step = 0; step < STEPS; ++step) {
    const bool half = DEPTH - step * 16 <= 8;
    unsigned b[S::BLOCK_C][2];
    load_groups<S>(b, weights + step * S::WEIGHT_PITCH);
    const Taps<S> taps(step);
    int away[4] = {};
    if constexpr (FIXED) {
#pragma unroll
      for (int k = 0; k < 4; ++k) away[k] = in.index(0, taps.c[k], taps.y[k], taps.x[k]) - in.index(0, 0, 0, 0);
    }
#pragma unroll
    for (int f = 0; f < S::FRAGMENTS; ++f)
#pragma unroll
      for (int r = 0; r < S::BLOCK_Y; ++r) {
        unsigned a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const auto p = place(f, lane / 4 + i % 2 * 8);
          const int row = y + r * S::STRIDE_Y, column = p.x * S::STRIDE_X + S::OFFSET_X;
          unsigned pair[2];
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const int k = i / 2 * 2 + j;
            if (half && i >= 2) pair[j] = 0;
            else if constexpr (FIXED) pair[j] = in.data[in.index(p.n, 0, row, column) + away[k]];
            else pair[j] = bits(in, p.n, taps.c[k], row + taps.y[k], column + taps.x[k]);
            if (!taps.real[k]) pair[j] = 0;
          }
          a[i] = pair[0] | pair[1] << 16;
        }
        multiply_groups<S>(sum[f][r], a, b, half);
      }
  }
}

// Biases and products of a block: `row` is its first row in the convolution's box, `group` its first group of channels.
template <class S, class In, class Place>
__device__ __forceinline__ void convolve_fragments(FragmentSums<S>& sum, const In& in, const uint2* weights, const float* bias,
                                                   int row, int group, const Place& place) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float start = S::BIAS ? __ldg(bias + (group + k) * 8 + lane % 4 * 2 + i % 2) : 0.0f;
#pragma unroll
      for (int f = 0; f < S::FRAGMENTS; ++f)
#pragma unroll
        for (int r = 0; r < S::BLOCK_Y; ++r) sum[f][r][k][i] = start;
    }
  const uint2* w = weights + group * 32 + lane;
  const int y = row * S::STRIDE_Y + S::OFFSET_Y;
  if constexpr (S::FEW) multiply_taps<S>(sum, in, w, y, place);
  else multiply_planes<S>(sum, in, w, S::GROUPS == 1 ? 0 : group * 8 / S::GROUP_OUT * S::GROUP_IN - in.c0, y, place);
}

// Whether any of `count` rows from y on lies inside the image.
template <class Out>
__device__ __forceinline__ bool any_row(const Out& out, int y, int count) {
  return out.y0 + y < out.height && out.y0 + y + count > 0;
}

template <class S, class Out, class In>
__device__ __forceinline__ void conv2d_mma(const Out& out, const float* __restrict__ params, const uint2* weights,
                                           const float* bias, const In& in) {
  typedef Task<S, 16 * S::FRAGMENTS, S::BLOCK_Y, S::BLOCK_C> Piece;
  if (is_idle<S>(out)) return;
  fill_border<S>(out);
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int task = first_task<S::TURN>(); task < Piece::COUNT; task += blockDim.x / 32) {
    const Piece piece(task);
    if (!is_made<S>(out, piece.y + S::BLOCK_Y - 1)) continue;
    const auto place = [&](int f, int m) { return Column<S>(piece.column + 16 * f + m); };
    FragmentSums<S> sum = {};
    if (S::INSIDE || any_row(out, piece.y, S::BLOCK_Y))
      convolve_fragments<S>(sum, in, weights, bias, piece.y, out.c0 / 8 + piece.group, place);
#pragma unroll
    for (int f = 0; f < S::FRAGMENTS; ++f)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const auto p = place(f, lane / 4 + 8 * h);
        const int c = piece.group * 8 + lane % 4 * 2;
        const PairColumn<Out> column(out, p.n, c, p.x, S::INSIDE);
#pragma unroll
        for (int r = 0; r < S::BLOCK_Y; ++r) {
          const int y = piece.y + r;
          const bool kept = p.real && piece.owns(y) && is_made<S>(out, y);
          const bool inside = S::INSIDE || unsigned(out.y0 + y) < unsigned(out.height);
#pragma unroll
          for (int k = 0; k < S::BLOCK_C; ++k) {
            const int channel = out.c0 + c + 8 * k;
            column.store(kept, y, inside, k, S::epilogue(sum[f][r][k][2 * h], channel, params),
                         S::epilogue(sum[f][r][k][2 * h + 1], channel + 1, params));
          }
        }
      }
  }
}

// A convolution whose output goes, in registers, into a pool P without overlap or padding. A warp makes eight of the pool's
// columns: row m of fragment f is column 2 f + m / 8 of window m % 8, so that a lane has all columns of its windows.
template <class S, class P, class Out, class In>
__device__ __forceinline__ void conv2d_mma_pool(const Out& out, const float* __restrict__ params, const uint2* weights,
                                                const float* bias, const In& in) {
  typedef Task<P, 8, 1, S::BLOCK_C> Piece;
  if (is_idle<P>(out)) return;
  fill_border<P>(out);
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
        convolve_fragments<S>(sum, in, weights, bias, piece.y * P::KERNEL_Y + row, out.c0 / 8 + piece.group, place);
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
      column.store(kept, piece.y, inside, k, v[0], v[1]);
    }
  }
}
