# cuda.budgets: counters of the emulator against tests/gpu/budgets.json. cuda.initcheck, cuda.racecheck: suites once more with
# the emulator's checks; the variables mean nothing to a real device.
if(Python3_Interpreter_FOUND)
    add_executable(gatefold_cuda_budgets ${CMAKE_CURRENT_SOURCE_DIR}/gpu/budgets.cu)
    target_link_libraries(gatefold_cuda_budgets PRIVATE gatefold_own gatefold::cuda)
    add_dependencies(cuda_tests gatefold_cuda_budgets)
    gatefold_test(NAME cuda.budgets COMMAND ${python} ${CMAKE_CURRENT_SOURCE_DIR}/gpu/budgets.py $<TARGET_FILE:gatefold_cuda_budgets>
                  ${PROJECT_BINARY_DIR}/cuda/cuda_counters.json ${GATEFOLD_CUDA_LAUNCHER})
    set_tests_properties(cuda.budgets PROPERTIES SKIP_RETURN_CODE 77)
endif()
foreach(check IN ITEMS initcheck racecheck)
    string(TOUPPER ${check} variable)
    gatefold_test(NAME cuda.${check} COMMAND ${GATEFOLD_CUDA_LAUNCHER} $<TARGET_FILE:gatefold_cuda_tests>
                  --run_test=cuda/layer,experts,plan)
    set_tests_properties(cuda.${check} PROPERTIES SKIP_RETURN_CODE 77
        ENVIRONMENT "COC_${variable}=1;COC_LEAKCHECK=1;COC_STREAMS=lazy;COC_DEVICE=a100;COC_SCHED_SEED=7;COC_COUNT=0")
endforeach()
