# Programs made of translation units with different flags, and of .cpp and .cu.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" OR NOT EXISTS ${include_dir}/gatefold/gatefold.hpp)
    return()
endif()

set(files link/main.cpp link/baseline.cpp link/avx2.cpp link/native.cpp)
set_source_files_properties(link/baseline.cpp PROPERTIES COMPILE_OPTIONS -march=x86-64-v2)
set_source_files_properties(link/avx2.cpp PROPERTIES COMPILE_OPTIONS -march=x86-64-v3)
set_source_files_properties(link/native.cpp PROPERTIES COMPILE_OPTIONS -march=native)
add_executable(gatefold_link_tiers ${files})
target_link_libraries(gatefold_link_tiers PRIVATE gatefold::gatefold)
gatefold_test(NAME link.two_tiers COMMAND gatefold_link_tiers)

if(gatefold_has_cuda)
    set_source_files_properties(link/in_cu.cu PROPERTIES COMPILE_OPTIONS -Xcompiler=-march=x86-64-v3)
    add_executable(gatefold_link_cu ${files} link/in_cu.cu)
    target_link_libraries(gatefold_link_cu PRIVATE gatefold::gatefold)
    target_compile_definitions(gatefold_link_cu PRIVATE GATEFOLD_LINK_WITH_CU)
    # One small architecture: what is tested is the host's side.
    set_property(TARGET gatefold_link_cu PROPERTY CUDA_ARCHITECTURES 80-virtual)
    gatefold_test(NAME link.cpp_and_cu COMMAND gatefold_link_cu)
endif()
