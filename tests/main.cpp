// The one module of every Boost.Test executable; the tests stand in plain translation units beside it.
#define BOOST_TEST_MODULE gatefold
#ifdef GATEFOLD_TEST_RUNNER_IN_HEADERS  // Boost's headers are there, its library is not
#include <boost/test/included/unit_test.hpp>
#else
#include <boost/test/unit_test.hpp>
#endif
