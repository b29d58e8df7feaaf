// Asynchronous copies as the scheduler sees them; what kernels call is declared in cuda_matrix.hpp.
#pragma once

namespace fusec_emulator {

// Before a block: copies that an aborted one has left behind are dropped.
void forget_copies();

// When the current thread leaves: fails if it has copies it has not waited for.
void check_copies();

}  // namespace fusec_emulator
