// Blocks alone with all gradients: see block_cases.hpp, `key_gradients`.
#include "block_gradients.hpp"

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(block_gradients_key)

BOOST_AUTO_TEST_CASE(every_gradient) { block_gradients::check_blocks<block_cases::key_gradients>(); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
