// Transposed convolution by matrix instructions: output position y = UP q + r - PHASE is of phase r, and each of the UP_Y x UP_X
// phases is an ordinary convolution of the input with every UP-th tap. Together they are one convolution over the positions q,
// whose channels are counted by phases, then channels (in planes of eight), or, of up to 4 channels, by channels, then phases,
// which may be those of several neighbours. The sum of one output runs as in conv2d_mma; taps that a phase lacks count as zeros.

// The positions q that a stage's region meets, as a region.
template <class S>
struct Quotients {
  static constexpr int IMAGES = S::IMAGES, CHANNELS = S::PHASE_CHANNELS;
  static constexpr int ROW = S::FIRST_Y, ROWS = S::COUNT_Y, COLUMN = S::FIRST_X, COLUMNS = S::COUNT_X;
};

// f(row) for each output row of a phase that a block makes: its `piece`, and the row of sums.
template <class S, class Out, class Piece, class F>
__device__ __forceinline__ void each_phase_row(const Out& out, const Piece& piece, int phase_y, F f) {
#pragma unroll
  for (int r = 0; r < S::BLOCK_Y; ++r) {
    const int y = (piece.y + r) * S::UP_Y + phase_y - S::PHASE_Y;
    if (piece.owns(piece.y + r) && unsigned(y - S::ROW) < unsigned(S::ROWS) && is_made<S>(out, y)) f(r, y);
  }
}

template <class S, class Out, class In>
__device__ __forceinline__ void conv_transpose2d_mma(const Out& out, const float* __restrict__ params, const uint2* weights,
                                                     const float* bias, const In& in) {
  typedef Quotients<S> Q;
  typedef Task<Q, 16 * S::FRAGMENTS, S::BLOCK_Y, S::BLOCK_C> Piece;
  constexpr int PHASES = S::UP_Y * S::UP_X, PLANES = (S::CHANNELS + 7) / 8;
  if (is_idle<S>(out)) return;
  fill_border<S>(out);
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int task = first_task<S::TURN>(); task < Piece::COUNT; task += blockDim.x / 32) {
    const Piece piece(task);
    const int top = piece.y * S::UP_Y - S::PHASE_Y;
    if (!is_made<S>(out, top + S::BLOCK_Y * S::UP_Y - 1)) continue;
    const auto place = [&](int f, int m) { return Column<Q>(piece.column + 16 * f + m); };
    // in planes, the task's channels are all of one phase
    const int phase = S::FEW_OUT ? 0 : piece.group / PLANES, plane = S::FEW_OUT ? 0 : piece.group % PLANES;
    const int group = S::FEW_OUT ? piece.group : phase * S::OUT_PLANES + out.c0 / 8 + plane;
    FragmentSums<S> sum;
    if (S::INSIDE || any_row(out, top, S::BLOCK_Y * S::UP_Y))
      convolve_fragments<S>(sum, in, Filters<S>(weights, bias, group), piece.y, place);
    else
      copy_start<S>(sum, GroupSums<S>{});
#pragma unroll
    for (int f = 0; f < S::FRAGMENTS; ++f)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const auto p = place(f, lane / 4 + 8 * h);
        if (!p.real) continue;
        const int left = p.x * S::UP_X - S::PHASE_X;
        if constexpr (S::FEW_OUT && S::UP_X % 2 == 0 && !Out::IN_SCRATCH && Out::LANES == 1) {
#pragma unroll
          for (int k = 0; k < S::BLOCK_C; ++k) {
            const int number = (piece.group + k) * 8 + lane % 4 * 2, c = number / PHASES, phase_y = number / S::UP_X % S::UP_Y;
            const int x = left + number % S::UP_X;
            if (c >= S::CHANNELS || out.n0 + p.n >= out.batch) continue;
            bool made[2];
#pragma unroll
            for (int i = 0; i < 2; ++i)
              made[i] = unsigned(x + i - S::COLUMN) < unsigned(S::COLUMNS) && unsigned(out.x0 + x + i) < unsigned(out.width);
            value_t* const at = out.data + out.index(p.n, c, piece.y * S::UP_Y + phase_y - S::PHASE_Y, x);
            each_phase_row<S>(out, piece, phase_y, [&](int r, int y) {
              if (unsigned(out.y0 + y) >= unsigned(out.height)) return;
              value_t* const to = at + (long long)(r * S::UP_Y) * out.width;
              const unsigned both = rounded_pair(S::epilogue(sum[f][r][k][2 * h], c, params),
                                                 S::epilogue(sum[f][r][k][2 * h + 1], c, params));
              if (made[0] && made[1] && reinterpret_cast<unsigned long long>(to) % 4 == 0) {
                *reinterpret_cast<unsigned*>(to) = both;
              } else {
                if (made[0]) to[0] = value_t(both);
                if (made[1]) to[1] = value_t(both >> 16);
              }
            });
          }
        } else if constexpr (S::FEW_OUT) {
#pragma unroll
          for (int k = 0; k < S::BLOCK_C; ++k)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              const int number = (piece.group + k) * 8 + lane % 4 * 2 + i, c = number / PHASES;
              const int x = left + number % S::UP_X;
              if (c >= S::CHANNELS || unsigned(x - S::COLUMN) >= unsigned(S::COLUMNS)) continue;
              each_phase_row<S>(out, piece, number / S::UP_X % S::UP_Y, [&](int r, int y) {
                out.template store<S::INSIDE>(p.n, c, y, x, S::epilogue(sum[f][r][k][2 * h + i], c, params));
              });
            }
        } else {
          const int x = left + phase % S::UP_X, c = plane * 8 + lane % 4 * 2;
          if (unsigned(x - S::COLUMN) >= unsigned(S::COLUMNS)) continue;
          const PairColumn<Out> column(out, p.n, c, x, S::INSIDE);
          each_phase_row<S>(out, piece, phase / S::UP_X, [&](int r, int y) {
            const bool inside = S::INSIDE || unsigned(out.y0 + y) < unsigned(out.height);
#pragma unroll
            for (int k = 0; k < S::BLOCK_C; ++k) {
              const int channel = out.c0 + c + 8 * k;
              column.store(true, y, inside, k, finished_pair<S>(sum[f][r][k][2 * h], sum[f][r][k][2 * h + 1], channel, params));
            }
          });
        }
      }
  }
}
