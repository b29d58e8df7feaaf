// A convolution by matrix instructions.
template <class S, class Out, class In>
__device__ __forceinline__ void conv2d_mma(const Out& out, const float* __restrict__ params, const uint2* weights,
                                           const float* bias, const In& in) {
  typedef Task<S, 16 * S::FRAGMENTS, S::BLOCK_Y, S::BLOCK_C> Piece;
  if (is_idle<S>(out)) return;
  fill_border<S>(out);
  const Filters<S> held(weights, bias, out.c0 / 8);
#pragma unroll 1
  for (int task = first_task<S::TURN>(); task < Piece::COUNT; task += blockDim.x / 32) {
    const Piece piece(task);
    if (!is_made<S>(out, piece.y + S::BLOCK_Y - 1)) continue;
    const auto place = [&](int f, int m) { return Column<S>(piece.column + 16 * f + m); };
    FragmentSums<S> sum;
    if (S::INSIDE || S::HELD || any_row(out, piece.y, S::BLOCK_Y)) {
      with_filters<S>(held, weights, bias, out.c0 / 8 + piece.group,
                      [&](const Filters<S>& filters) { convolve_fragments<S>(sum, in, filters, piece.y, place); });
    } else {
      copy_start<S>(sum, GroupSums<S>{});
    }
    if constexpr (S::BY_MATRIX) store_planes<S>(out, sum, piece, place, params);
    else if constexpr (!Out::IN_SCRATCH && Out::LANES == 8) store_pixels<S>(out, sum, piece, place, params);
    else if constexpr (!Out::IN_SCRATCH && (S::IMAGES == 1 || S::COLUMNS % 4 == 0)) store_rows<S>(out, sum, piece, place, params);
    else store_pairs<S>(out, sum, piece, place, params);
  }
}
