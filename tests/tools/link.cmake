# Programs made of translation units with different flags, and of .cpp and .cu.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" OR NOT EXISTS ${include_dir}/gatefold/gatefold.hpp)
    return()
endif()

add_executable(gatefold_link_tiers link/main.cpp link/baseline.cpp link/native.cpp)
target_link_libraries(gatefold_link_tiers PRIVATE gatefold::gatefold)
set_source_files_properties(link/baseline.cpp PROPERTIES COMPILE_OPTIONS -march=x86-64-v2)
set_source_files_properties(link/native.cpp PROPERTIES COMPILE_OPTIONS -march=native)
gatefold_test(NAME link.two_tiers COMMAND gatefold_link_tiers)

if(gatefold_has_cuda)
    add_executable(gatefold_link_cu link/main.cpp link/baseline.cpp link/native.cpp link/in_cu.cu)
    target_link_libraries(gatefold_link_cu PRIVATE gatefold::gatefold)
    target_compile_definitions(gatefold_link_cu PRIVATE GATEFOLD_LINK_WITH_CU)
    gatefold_test(NAME link.cpp_and_cu COMMAND gatefold_link_cu)
endif()
