# Small projects that use the library in each of the ways the README names, built in the build tree from an installed copy or
# from this source tree.
if(NOT EXISTS ${include_dir}/gatefold/gatefold.hpp)
    return()
endif()
set(consumers ${CMAKE_CURRENT_SOURCE_DIR}/consumer)
set(consumer_build ${CMAKE_CURRENT_BINARY_DIR}/consumer)
set(consumer_prefix ${consumer_build}/prefix)

# gatefold_consumer(NAME FOLDER OPTIONS…): configures, builds and runs the project consumer/FOLDER.
function(gatefold_consumer name folder)
    gatefold_test(NAME consumer.${name}
        COMMAND ${CMAKE_CTEST_COMMAND} --build-and-test ${consumers}/${folder} ${consumer_build}/${name}
                --build-generator ${CMAKE_GENERATOR} --build-options -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}
                -DCMAKE_BUILD_TYPE=Debug ${ARGN} --test-command consumer)
endfunction()

# gatefold_bare_consumer(NAME OPTIONS…): one compiler command, then the program.
function(gatefold_bare_consumer name)
    gatefold_test(NAME consumer.${name}
        COMMAND ${CMAKE_COMMAND} -DCOMPILER=${CMAKE_CXX_COMPILER} -DSOURCE=${consumers}/main.cpp
                -DOUTPUT=${consumer_build}/${name}_program ${ARGN} -P ${consumers}/compile_and_run.cmake)
endfunction()

if(GATEFOLD_INSTALL)
    gatefold_test(NAME consumer.install
        COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${consumer_prefix})
    set_tests_properties(consumer.install PROPERTIES FIXTURES_SETUP gatefold_installed)

    gatefold_consumer(find_package find_package -DCMAKE_PREFIX_PATH=${consumer_prefix}
                      -DGATEFOLD_WANTED_VERSION=${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
    find_program(GATEFOLD_PKG_CONFIG NAMES pkg-config pkgconf)
    if(GATEFOLD_PKG_CONFIG)
        gatefold_bare_consumer(pkg_config -DPKG_CONFIG=${GATEFOLD_PKG_CONFIG} -DPREFIX=${consumer_prefix})
        set_tests_properties(consumer.pkg_config PROPERTIES FIXTURES_REQUIRED gatefold_installed)
    else()
        message(STATUS "gatefold: no pkg-config; its test is left out")
    endif()
    set_tests_properties(consumer.find_package PROPERTIES FIXTURES_REQUIRED gatefold_installed)
    if(gatefold_has_cuda)
        gatefold_consumer(cuda_find_package cuda -DCMAKE_PREFIX_PATH=${consumer_prefix}
                          -DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER})
        set_tests_properties(consumer.cuda_find_package PROPERTIES FIXTURES_REQUIRED gatefold_installed)
    endif()
endif()
if(gatefold_has_cuda)
    gatefold_consumer(cuda_add_subdirectory cuda -DGATEFOLD_SOURCE=${PROJECT_SOURCE_DIR}
                      -DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER})
endif()
gatefold_consumer(add_subdirectory add_subdirectory -DGATEFOLD_SOURCE=${PROJECT_SOURCE_DIR})
gatefold_consumer(fetch_content fetch_content -DGATEFOLD_SOURCE=${PROJECT_SOURCE_DIR})
gatefold_bare_consumer(plain_include -DFLAGS=-I${PROJECT_SOURCE_DIR}/include)
gatefold_bare_consumer(single_header "-DFLAGS=-I${PROJECT_SOURCE_DIR}/single_include -DSINGLE_HEADER")
