# The generated header: up to date, usable in two translation units, and the unit tests compiled against it.
file(GLOB_RECURSE gatefold_headers CONFIGURE_DEPENDS ${include_dir}/gatefold/*.hpp ${include_dir}/gatefold/*.cuh)
set(amalgamate ${PROJECT_SOURCE_DIR}/single_include/amalgamate.py)
set(committed ${PROJECT_SOURCE_DIR}/single_include/gatefold.hpp)
set(fresh_dir ${CMAKE_CURRENT_BINARY_DIR}/single)
set(fresh ${fresh_dir}/gatefold.hpp)

gatefold_test(NAME single_header.rules COMMAND ${python} ${tools}/amalgamate_test.py ${amalgamate})
add_custom_target(amalgamate COMMAND ${python} ${amalgamate} COMMENT "Writing single_include/gatefold.hpp" VERBATIM)
if(NOT EXISTS ${include_dir}/gatefold/gatefold.hpp)
    return()
endif()

# The build works on a copy of its own, so that a forgotten regeneration is one failing test and not a broken build.
add_custom_command(OUTPUT ${fresh} COMMAND ${python} ${amalgamate} --output ${fresh}
                   DEPENDS ${amalgamate} ${gatefold_headers} COMMENT "Generating the single header" VERBATIM)
add_custom_target(single_header DEPENDS ${fresh})
gatefold_test(NAME single_header.fresh COMMAND ${CMAKE_COMMAND} -E compare_files ${committed} ${fresh})

add_executable(gatefold_single_two_tus single_header/first.cpp single_header/second.cpp)
add_dependencies(gatefold_single_two_tus single_header)
target_include_directories(gatefold_single_two_tus PRIVATE ${fresh_dir})
target_compile_features(gatefold_single_two_tus PRIVATE cxx_std_20)
gatefold_test(NAME single_header.two_tus COMMAND gatefold_single_two_tus)

# The unit tests once more: a folder of one-line headers turns every <gatefold/...> into the single header.
if(Boost_FOUND)
    gatefold_suite_files(files unit)
    # Not: a header that the single one has for nvcc alone, and peaks of memory, which want a process of their own.
    list(FILTER files EXCLUDE REGEX "(cuda_wave_model|pack_memory)_test")
    if(files)
        foreach(header IN LISTS gatefold_headers)
            file(RELATIVE_PATH name ${include_dir} ${header})
            file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/single_shim/${name}
                 CONTENT "#pragma once\n#include \"${fresh}\"\n")
        endforeach()
        add_executable(gatefold_single_unit_tests $<TARGET_OBJECTS:gatefold_test_main> ${files})
        add_dependencies(gatefold_single_unit_tests single_header)
        target_include_directories(gatefold_single_unit_tests BEFORE PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/single_shim)
        target_link_libraries(gatefold_single_unit_tests PRIVATE gatefold_test $<TARGET_NAME_IF_EXISTS:OpenMP::OpenMP_CXX>)
        target_compile_features(gatefold_single_unit_tests PRIVATE cxx_std_20)
        target_compile_options(gatefold_single_unit_tests PRIVATE ${native} -O1)
        gatefold_test(NAME single_header.unit COMMAND gatefold_single_unit_tests TIMEOUT 900)
    endif()
endif()
