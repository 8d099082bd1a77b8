# What published layers ask of the hardware, against limits that are committed beside this file.
#
#   cuda.budgets   counters of the emulator           cuda.ptxas   registers, shared memory, spills
#   cuda.sass      instructions of the main loops     budget.cuda_layer   compile time and size
include(gpu/modes.cmake)
if(NOT Python3_Interpreter_FOUND)
    return()
endif()
set(budgets ${CMAKE_CURRENT_SOURCE_DIR}/gpu/budgets)
file(GLOB layers CONFIGURE_DEPENDS ${budgets}/*.cu)
list(FILTER layers EXCLUDE REGEX "_unordered\\.cu$")

# PTX to be executed and machine code to be looked at; ptxas's words stay beside the objects.
function(gatefold_budget_layers target architectures)
    add_library(${target} OBJECT ${ARGN})
    target_link_libraries(${target} PRIVATE gatefold_own gatefold::cuda)
    target_compile_options(${target} PRIVATE -Xptxas=-v)
    set(launcher ${python} ${tools}/cuda_keep_output.py ${CMAKE_CUDA_COMPILER_LAUNCHER})
    set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${architectures}" CUDA_COMPILER_LAUNCHER "${launcher}")
    add_dependencies(cuda_tests ${target})
endfunction()
gatefold_budget_layers(gatefold_cuda_budget_layers 80 ${layers})  # PTX of sm_80 serves the models of all cards
gatefold_budget_layers(gatefold_cuda_budget_layers_sm90 90a-real ${budgets}/mixtral.cu ${budgets}/qwen3.cu)
gatefold_budget_layers(gatefold_cuda_budget_unordered 80 ${budgets}/qwen3_unordered.cu)  # counted, and no kernel of a usual call
add_executable(gatefold_cuda_budgets ${budgets}/main.cpp $<TARGET_OBJECTS:gatefold_cuda_budget_layers>
               $<TARGET_OBJECTS:gatefold_cuda_budget_unordered>)
target_link_libraries(gatefold_cuda_budgets PRIVATE gatefold_own gatefold::cuda)
add_dependencies(cuda_tests gatefold_cuda_budgets)

set(counters ${PROJECT_BINARY_DIR}/cuda/cuda_counters.json)
gatefold_test(NAME cuda.budgets COMMAND ${python} ${CMAKE_CURRENT_SOURCE_DIR}/gpu/budgets.py $<TARGET_FILE:gatefold_cuda_budgets>
              ${counters} ${GATEFOLD_CUDA_LAUNCHER})
set_tests_properties(cuda.budgets PROPERTIES SKIP_RETURN_CODE 77 FIXTURES_SETUP cuda_launches)

set(objects $<TARGET_OBJECTS:gatefold_cuda_budget_layers> $<TARGET_OBJECTS:gatefold_cuda_budget_layers_sm90>)  # two lists
gatefold_test(NAME cuda.ptxas COMMAND ${python} ${tools}/cuda_ptxas.py --release ${CMAKE_CUDA_COMPILER_VERSION}
              --table ${CMAKE_CURRENT_SOURCE_DIR}/gpu/ptxas.json --launches ${PROJECT_BINARY_DIR}/cuda/cuda_launches.json ${objects})
set_tests_properties(cuda.ptxas PROPERTIES FIXTURES_REQUIRED cuda_launches)

# Widths that no tile divides make the copies conditional; at full width they are whole but for gpt-oss.
gatefold_test(NAME cuda.sass COMMAND ${python} ${tools}/cuda_sass.py --nvcc ${CMAKE_CUDA_COMPILER} --ragged qwen3 --ragged deepseek_v3
              --ragged gpt_oss --ragged gpt_oss_whole --ragged qwen2 ${objects})
set_tests_properties(cuda.sass PROPERTIES SKIP_RETURN_CODE 77)

gatefold_test(NAME budget.cuda_layer TIMEOUT 900 LABELS cuda slow
              COMMAND ${python} ${tools}/cuda_compile_budget.py --nvcc ${CMAKE_CUDA_COMPILER} --include ${include_dir}
                      --source ${CMAKE_CURRENT_SOURCE_DIR}/gpu/one_layer.cu --time 4 --object 1000000 --repeat 1)
set_tests_properties(budget.cuda_layer PROPERTIES RUN_SERIAL ON)
