// What all convolutions by matrix instructions share. A warp computes 16 x FRAGMENTS columns, BLOCK_Y rows and 8 x BLOCK_C channels at once: a row
// of a fragment is a column of the image, or of several images side by side. The sum of one output runs over filter columns,
// groups of 16 input channels, filter rows in this order, whatever the blocks, from the bias on. Of few input channels each filter
// column counts as so many channels more, and there is one filter column.

template <class S>
using FragmentSums = float[S::FRAGMENTS][S::BLOCK_Y][S::BLOCK_C][4];
template <class S>
using GroupSums = float[S::BLOCK_C][4];

// One of two arrays; ?: would make pointers of them. Only ever chosen for good: where an array was chosen by what becomes known when
// loops are unrolled, NVRTC 13 has taken what it held before.
template <bool FIRST, class T>
__device__ __forceinline__ const T& either(const T& a, const T& b) {
  if constexpr (FIRST) return a;
  else return b;
}

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
  static constexpr int GROUPS = (R::CHANNELS + 7) / 8, COUNT = X * Y * (GROUPS / BLOCK_C);
  int column, y, own, group;
  __device__ __forceinline__ explicit Task(int number) {
    const unsigned task = number;
    const int row = (GROUPS == BLOCK_C ? task / X : task / X % Y) * BLOCK_Y, last = R::ROWS - BLOCK_Y;
    column = task % X * COLUMNS;
    own = R::ROW + row;
    y = R::ROW + (row < last ? row : last);
    group = GROUPS == BLOCK_C ? 0 : task / (X * Y) * BLOCK_C;
  }
  __device__ __forceinline__ bool owns(int row) const { return R::ROWS % BLOCK_Y == 0 || row >= own; }
};

// A warp's first task: the tasks of stages that run side by side are dealt out as one row of cards, of which TURN are gone.
template <int TURN>
__device__ __forceinline__ int first_task() {
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  return TURN == 0 ? warp : (warp + warps - TURN % warps) % warps;
}

// A lane's registers of weights: two for each of BLOCK_C groups of channels.
template <class S>
using GroupWeights = unsigned[S::BLOCK_C][2];
template <class S>
__device__ __forceinline__ void load_groups(GroupWeights<S>& w, const uint2* weights) {
#pragma unroll
  for (int k = 0; k < S::BLOCK_C; ++k) {
    const uint2 v = weights[k * 32];
    w[k][0] = v.x, w[k][1] = v.y;
  }
}

// Filters of BLOCK_C groups from `group` on: what sums start from and, where they are HELD, all weights in registers.
template <class S>
struct Filters {
  static constexpr int ROWS = S::KERNEL_Y;
  int group;
  const uint2* weights;
  GroupSums<S> start;
  GroupWeights<S> held[S::HELD ? S::STEPS : 1][ROWS];

  __device__ __forceinline__ Filters(const uint2* all, const float* bias, int group_) : group(group_) {
    const int lane = threadIdx.x % 32;
    weights = all + group * 32 + lane;
#pragma unroll
    for (int k = 0; k < S::BLOCK_C; ++k)
      if constexpr (S::BIAS) {
        load_kept_x4(start[k], bias + ((group + k) * 4 + lane % 4) * 4);
      } else {
        start[k][0] = start[k][1] = start[k][2] = start[k][3] = 0.0f;
      }
    if constexpr (S::HELD) {
#pragma unroll
      for (int i = 0; i < S::STEPS * ROWS; ++i)
#pragma unroll
        for (int k = 0; k < S::BLOCK_C; ++k) load_kept_x2(held[i / ROWS][i % ROWS][k], weights + i * S::WEIGHT_PITCH + k * 32);
    }
  }
  __device__ __forceinline__ void load(GroupWeights<S>& w, int step, int ky) const {
    load_groups<S>(w, weights + (step * ROWS + ky) * S::WEIGHT_PITCH);
  }
};

// sum = products of one fragment + `start`, where the sum is `fresh`, or + the sum; the fragment's first eight columns alone where
// `half`, the others being past the last channel.
template <class S>
__device__ __forceinline__ void multiply_groups(GroupSums<S>& sum, const unsigned (&a)[4], const GroupWeights<S>& w, bool half,
                                                bool fresh, const GroupSums<S>& start) {
#pragma unroll
  for (int k = 0; k < S::BLOCK_C; ++k) {
    if (half) {
      const unsigned first[2] = {a[0], a[1]};
      if (fresh) multiply(sum[k], first, w[k][0], start[k]);
      else multiply(sum[k], first, w[k][0], sum[k]);
    } else {
      if (fresh) multiply(sum[k], a, w[k], start[k]);
      else multiply(sum[k], a, w[k], sum[k]);
    }
  }
}

// Whether all steps are unrolled, so that the first products can add to the bias where it is; else sums begin as copies of it.
template <class S>
__device__ constexpr bool starts_in_place() { return S::UNROLL >= S::STEPS && S::REUSED; }
template <class S>
__device__ __forceinline__ void copy_start(FragmentSums<S>& sum, const GroupSums<S>& start) {
#pragma unroll
  for (int f = 0; f < S::FRAGMENTS; ++f)
#pragma unroll
    for (int r = 0; r < S::BLOCK_Y; ++r)
#pragma unroll
      for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[f][r][k][i] = start[k][i];
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

  // Row y, as `load` takes it: where it starts, in scratch.
  __device__ __forceinline__ int row(int y) const {
    if constexpr (In::IN_SCRATCH) return in.row_start(S::CLAMPED ? clamped(y, S::BOX_Y) : y);
    else return y;
  }
  // Channels 16 `pair` and on of fragment f in a row, `shift` columns on; `half`: eight of them alone.
  __device__ __forceinline__ void load(unsigned (&a)[4], int f, int pair, int line, int shift, bool half) const {
    const int lane = threadIdx.x % 32;
    if constexpr (In::IN_SCRATCH) {
      const int column = S::CLAMPED ? clamped(x[f][0] + shift, S::BOX_X) : shift;
      const value_t* row = at[f] + line + column * 8 + pair * 2 * In::PLANE;
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
        a[i] = half && i >= 2 ? 0u : pair_bits(in, n[f][i % 2], c, line, x[f][i % 2] + shift);
      }
    }
  }
};

// Who loads fragments for a stage: those of few input channels have others.
template <class S, class In, bool FEW, bool PAIRED>
struct FragmentsOf {
  typedef Fragments<S, In> Loader;
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
template <class S, class In, class Place>
__device__ __forceinline__ void multiply_planes(FragmentSums<S>& sum, const In& in, const Filters<S>& filters, int y,
                                                const Place& place) {
  constexpr int PLANES = (S::GROUP_IN + 7) / 8, PAIRS = (PLANES + 1) / 2;
  const int first = S::GROUPS == 1 ? 0 : filters.group * 8 / S::GROUP_OUT * S::GROUP_IN - in.c0;  // of the group's channels
  constexpr int ROWS = (S::BLOCK_Y - 1) * S::STRIDE_Y + (S::KERNEL_Y - 1) * S::DILATION_Y + 1;
  const typename FragmentsOf<S, In, S::FEW, S::PAIRED>::Loader fragments(in, first, place);
  if (!starts_in_place<S>()) copy_start<S>(sum, filters.start);
  int lines[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; ++i) lines[i] = fragments.row(y + i);
  const auto step = [&](int column, int pair, bool half) {
    const int number = column * PAIRS + pair, shift = column * S::DILATION_X;
    if constexpr (S::REUSED) {
      GroupWeights<S> room[S::KERNEL_Y];
      if constexpr (!S::HELD) {
#pragma unroll
        for (int ky = 0; ky < S::KERNEL_Y; ++ky) filters.load(room[ky], number, ky);
      }
      const GroupWeights<S>(&b)[S::KERNEL_Y] = either<S::HELD>(filters.held[S::HELD ? number : 0], room);
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
        if (!meets_any<S>(i)) continue;
#pragma unroll
        for (int f = 0; f < S::FRAGMENTS; ++f) {
          unsigned a[4];
          fragments.load(a, f, pair, lines[i], shift, half);
#pragma unroll
          for (int ky = 0; ky < S::KERNEL_Y; ++ky) {
            if (!meets<S>(i, ky)) continue;
            GroupSums<S>& row = sum[f][(i - ky * S::DILATION_Y) / S::STRIDE_Y];
            multiply_groups<S>(row, a, b[ky], half, starts_in_place<S>() && number == 0 && ky == 0, filters.start);
          }
        }
      }
    } else {
#pragma unroll 2
      for (int ky = 0; ky < S::KERNEL_Y; ++ky) {
        GroupWeights<S> b;
        filters.load(b, number, ky);
#pragma unroll
        for (int r = 0; r < S::BLOCK_Y; ++r)
#pragma unroll
          for (int f = 0; f < S::FRAGMENTS; ++f) {
            unsigned a[4];
            fragments.load(a, f, pair, fragments.row(y + r * S::STRIDE_Y + ky * S::DILATION_Y), shift, half);
            multiply_groups<S>(sum[f][r], a, b, half, false, filters.start);
          }
      }
    }
  };
  // steps of half the depth are known when compiling: a choice at each step would cost more than the step
  constexpr int WHOLE = PLANES / 2, COLUMNS_UNROLLED = S::UNROLL >= S::STEPS ? S::KERNEL_X : PAIRS == 1 ? S::UNROLL : 1;
#pragma unroll COLUMNS_UNROLLED
  for (int column = 0; column < S::KERNEL_X; ++column) {
#pragma unroll S::UNROLL
    for (int pair = 0; pair < WHOLE; ++pair) step(column, pair, false);
    if (PLANES % 2 == 1) step(column, WHOLE, true);
  }
}

// Bias and products of a block whose first row in the convolution's box is `row`.
template <class S, class In, class Place>
__device__ __forceinline__ void convolve_fragments(FragmentSums<S>& sum, const In& in, const Filters<S>& filters, int row,
                                                   const Place& place) {
  multiply_planes<S>(sum, in, filters, row * S::STRIDE_Y + S::OFFSET_Y, place);
}

// f(filters) for the filters of `group`: those `held` by the warp, or loaded now.
template <class S, class F>
__device__ __forceinline__ void with_filters(const Filters<S>& held, const uint2* weights, const float* bias, int group, F f) {
  if constexpr (S::HELD) f(held);
  else f(Filters<S>(weights, bias, group));
}

// Two neighbouring channels through the epilogue, rounded; a lone relu costs nothing when rounding.
template <class S>
__device__ __forceinline__ unsigned finished_pair(float low, float high, int c, const float* __restrict__ params) {
  if constexpr (S::RELU) return rounded_pair_relu(low, high);
  else return rounded_pair(S::epilogue(low, c, params), S::epilogue(high, c + 1, params));
}

// Whether any of `count` rows from y on lies inside the image.
template <class Out>
__device__ __forceinline__ bool any_row(const Out& out, int y, int count) {
  return out.y0 + y < out.height && out.y0 + y + count > 0;
}
