// ctest: heavy
// Learning rates of the cosine schedule at the points that define it.
#include <boost/test/unit_test.hpp>

#include <gatefold/train/schedule.hpp>

namespace gf = gatefold;

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(schedule)

BOOST_AUTO_TEST_CASE(climbs_to_the_peak_and_falls_to_the_floor, *boost::unit_test::tolerance(1e-15)) {
    const gf::cosine_schedule s{.peak = 0.01, .warm_up = 2, .steps = 5, .floor = 0.1};
    BOOST_TEST(s.rate(0) == 0.005);
    BOOST_TEST(s.rate(1) == 0.01);
    BOOST_TEST(s.rate(2) == 0.01);
    BOOST_TEST(s.rate(3) == 0.00775);
    BOOST_TEST(s.rate(4) == 0.00325);
    BOOST_TEST(s.rate(5) == 0.001);
    BOOST_TEST(s.rate(500) == 0.001);
}

BOOST_AUTO_TEST_CASE(works_without_warm_up_and_for_runs_shorter_than_it, *boost::unit_test::tolerance(1e-15)) {
    const gf::cosine_schedule no_warm_up{.peak = 2, .steps = 4, .floor = 0};
    BOOST_TEST(no_warm_up.rate(0) == 2.0);
    BOOST_TEST(no_warm_up.rate(2) == 1.0);
    const gf::cosine_schedule only_warm_up{.peak = 1, .warm_up = 10, .steps = 5};
    BOOST_TEST(only_warm_up.rate(4) == 0.5);
    BOOST_TEST(only_warm_up.rate(9) == 1.0);
    BOOST_TEST(only_warm_up.rate(10) == 0.1);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
