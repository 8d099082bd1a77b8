# Tests that run on a CUDA device: gpu/AREA_test.cu holds the suite cuda/AREA and becomes cuda.AREA.
#
# GATEFOLD_CUDA_LAUNCHER stands before each command. With GATEFOLD_CUDA=AUTO they are built only where a device or a launcher is
# there to run them; otherwise one skipped test says so.
add_custom_target(cuda_tests)
get_property(examples GLOBAL PROPERTY gatefold_cuda_examples)
if(examples)
    add_dependencies(cuda_tests ${examples})
endif()
if(NOT gatefold_has_cuda OR NOT Boost_FOUND)
    return()
endif()
file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/gpu/*_test.cu)
if(NOT files)
    return()
endif()

if(NOT gatefold_runs_cuda AND NOT GATEFOLD_CUDA STREQUAL "ON")
    message(STATUS "gatefold: neither a CUDA device nor GATEFOLD_CUDA_LAUNCHER; the CUDA tests are skipped")
    gatefold_test(NAME cuda.all COMMAND ${CMAKE_COMMAND} -E echo "skipped: neither a CUDA device nor GATEFOLD_CUDA_LAUNCHER")
    set_tests_properties(cuda.all PROPERTIES SKIP_REGULAR_EXPRESSION "skipped:")
    return()
endif()

add_executable(gatefold_cuda_tests main.cpp ${files})
add_dependencies(cuda_tests gatefold_cuda_tests)
target_compile_definitions(gatefold_cuda_tests PRIVATE $<$<COMPILE_LANGUAGE:CXX>:GATEFOLD_TEST_NEEDS_CUDA>)
if(NOT TARGET Boost::unit_test_framework)
    target_compile_definitions(gatefold_cuda_tests PRIVATE $<$<COMPILE_LANGUAGE:CXX>:GATEFOLD_TEST_RUNNER_IN_HEADERS>)
endif()
target_link_libraries(gatefold_cuda_tests PRIVATE gatefold_own gatefold_test gatefold::cuda)

foreach(file IN LISTS files)
    get_filename_component(area ${file} NAME_WE)
    string(REGEX REPLACE "_test$" "" area ${area})
    gatefold_test_directive(${file})
    gatefold_test(NAME cuda.${area} TIMEOUT ${timeout} LABELS ${labels}
        COMMAND ${GATEFOLD_CUDA_LAUNCHER} $<TARGET_FILE:gatefold_cuda_tests> --run_test=cuda/${area})
    set_tests_properties(cuda.${area} PROPERTIES SKIP_RETURN_CODE 77 ENVIRONMENT
        "GATEFOLD_GOLDEN_DIR=${GATEFOLD_GOLDEN_DIR};GATEFOLD_BUILD_DIR=${PROJECT_BINARY_DIR}")
endforeach()
include(gpu/budgets.cmake)
