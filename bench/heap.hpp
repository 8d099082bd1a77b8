// Counts what the program asks the heap for.
#pragma once

namespace bench {

/// Calls of the global operator new, and of count_allocation, since the program began.
long allocations();
void count_allocation();

}  // namespace bench
