// Blocks of golden models: see block_cases.hpp, `other_models`.
#include "block_comparison.hpp"

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(blocks_other)

BOOST_AUTO_TEST_CASE(outputs_ids_and_weights) { block_comparison::check_models<block_cases::other_models>(); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
