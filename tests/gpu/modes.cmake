# The CUDA tests once more under the emulator's checks, and without a device. The variables mean nothing to a real device, where
# these run as the tests they repeat.
function(gatefold_cuda_mode name suites)
    gatefold_test(NAME cuda.${name} COMMAND ${GATEFOLD_CUDA_LAUNCHER} $<TARGET_FILE:gatefold_cuda_tests> --run_test=${suites} TIMEOUT 900)
    set_tests_properties(cuda.${name} PROPERTIES SKIP_RETURN_CODE 77 FAIL_REGULAR_EXPRESSION "bytes, not freed"
        ENVIRONMENT "GATEFOLD_GOLDEN_DIR=${GATEFOLD_GOLDEN_DIR};GATEFOLD_BUILD_DIR=${PROJECT_BINARY_DIR};COC_COUNT=0;${ARGN}")
endfunction()

gatefold_cuda_mode(initcheck cuda COC_INITCHECK=1)
gatefold_cuda_mode(racecheck cuda/layer,experts,narrow_shapes,capacity,inputs,plan_by,tf32,sixteen_bit,stages,shared,cuts,unordered COC_RACECHECK=1)
# Work runs as late as CUDA allows, warps and blocks in two other orders, on the model of either card.
set(late COC_STREAMS=lazy COC_LEAKCHECK=1)
gatefold_cuda_mode(late_a100 cuda/layer,experts,graph,shapes,narrow_shapes,copies,unordered ${late} COC_DEVICE=a100 COC_SCHED_SEED=7)
gatefold_cuda_mode(late_h100 cuda/layer,experts,graph,shapes,narrow_shapes,copies,unordered ${late} COC_DEVICE=h100 COC_SCHED_SEED=11)
gatefold_cuda_mode(two_devices cuda/misuse COC_DEVICES=2 COC_LEAKCHECK=1)

add_executable(gatefold_cuda_no_device ${CMAKE_CURRENT_SOURCE_DIR}/gpu/no_device.cu)
target_link_libraries(gatefold_cuda_no_device PRIVATE gatefold_own gatefold::cuda)
add_dependencies(cuda_tests gatefold_cuda_no_device)
gatefold_test(NAME cuda.no_device COMMAND ${GATEFOLD_CUDA_LAUNCHER} $<TARGET_FILE:gatefold_cuda_no_device>)
set_tests_properties(cuda.no_device PROPERTIES SKIP_RETURN_CODE 77 ENVIRONMENT "COC_DEVICES=0")

# A kernel fault ends what a process can do with CUDA, and the emulator's launcher answers with a status of its own.
add_executable(gatefold_cuda_kernel_errors ${CMAKE_CURRENT_SOURCE_DIR}/gpu/kernel_errors.cu)
target_link_libraries(gatefold_cuda_kernel_errors PRIVATE gatefold_own gatefold::cuda)
add_dependencies(cuda_tests gatefold_cuda_kernel_errors)
foreach(mode immediate deferred)
    gatefold_test(NAME cuda.kernel_errors_${mode} COMMAND ${GATEFOLD_CUDA_LAUNCHER} $<TARGET_FILE:gatefold_cuda_kernel_errors> ${mode})
    set_tests_properties(cuda.kernel_errors_${mode} PROPERTIES ENVIRONMENT "COC_STREAMS=lazy" PASS_REGULAR_EXPRESSION "ends as documented" SKIP_REGULAR_EXPRESSION "skipped:")
endforeach()
