# The tests of the golden blocks are written at build time: block_generator looks through GATEFOLD_GOLDEN_DIR and makes a
# type and a test of every block there, golden.block_models.FOLDER and golden.block_gradients.FILE.
if(NOT TARGET gatefold_golden_tests OR NOT nlohmann_json_FOUND)
    return()
endif()

# The reader of configurations without its program.
set(hub_config ${PROJECT_SOURCE_DIR}/examples/hub_config)
file(GLOB hub_config_files CONFIGURE_DEPENDS ${hub_config}/*.cpp)
list(REMOVE_ITEM hub_config_files ${hub_config}/main.cpp)
add_library(gatefold_hub_config STATIC ${hub_config_files})
target_link_libraries(gatefold_hub_config PUBLIC gatefold_own nlohmann_json::nlohmann_json)
target_link_libraries(gatefold_golden_tests PRIVATE gatefold_hub_config)

add_library(gatefold_block_folders STATIC golden/block_folders.cpp)
target_link_libraries(gatefold_block_folders PUBLIC gatefold_hub_config)
target_include_directories(gatefold_block_folders PUBLIC ${PROJECT_SOURCE_DIR})
add_executable(block_generator golden/block_generator.cpp)
target_link_libraries(block_generator PRIVATE gatefold_block_folders)

set(blocks ${CMAKE_CURRENT_BINARY_DIR}/golden_blocks)
file(MAKE_DIRECTORY ${blocks})
add_custom_command(OUTPUT ${blocks}/literals.cpp COMMAND block_generator --literals ${blocks}/literals.cpp
                   DEPENDS block_generator VERBATIM)
set(blocks_sources)
if(IS_DIRECTORY "${GATEFOLD_GOLDEN_DIR}/models")
    file(GLOB blocks_data CONFIGURE_DEPENDS ${GATEFOLD_GOLDEN_DIR}/models/*/config.json
         ${GATEFOLD_GOLDEN_DIR}/models/*/golden.safetensors ${GATEFOLD_GOLDEN_DIR}/gradients/blocks/*.safetensors)
    # Seven folders or files a translation unit, so that none grows with the data.
    set(blocks_names ${blocks_data})
    list(FILTER blocks_names INCLUDE REGEX "\\.safetensors$")
    list(LENGTH blocks_names blocks_count)
    math(EXPR blocks_parts "(${blocks_count} + 6) / 7")
    foreach(part RANGE 1 ${blocks_parts})
        list(APPEND blocks_sources ${blocks}/blocks_${part}.cpp)
    endforeach()
    set(blocks_excuses ${CMAKE_CURRENT_SOURCE_DIR}/golden/not_expressible.txt)
    add_custom_command(OUTPUT ${blocks_sources} ${blocks}/tests.cmake
        COMMAND block_generator ${GATEFOLD_GOLDEN_DIR} ${blocks_excuses} ${blocks} ${blocks_parts}
        DEPENDS block_generator ${blocks_excuses} ${blocks_data}
        COMMENT "Looking for golden blocks in ${GATEFOLD_GOLDEN_DIR}" VERBATIM)
    gatefold_test(NAME golden.block_folders
                  COMMAND block_generator ${GATEFOLD_GOLDEN_DIR} ${blocks_excuses} ${blocks} --check)
    gatefold_test(NAME golden.block_generator
                  COMMAND ${CMAKE_COMMAND} -DGENERATOR=$<TARGET_FILE:block_generator> -DGOLDEN=${GATEFOLD_GOLDEN_DIR}
                  -DWORK=${blocks}/generator_test -P ${CMAKE_CURRENT_SOURCE_DIR}/golden/block_generator_test.cmake)
else()
    gatefold_test(NAME golden.block_folders
                  COMMAND ${CMAKE_COMMAND} -E echo "skipped: no golden data (GATEFOLD_GOLDEN_DIR)")
    set_tests_properties(golden.block_folders PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped")
endif()

add_executable(gatefold_golden_blocks $<TARGET_OBJECTS:gatefold_test_main> ${blocks}/literals.cpp ${blocks_sources})
target_link_libraries(gatefold_golden_blocks PRIVATE gatefold_test gatefold_block_folders)
gatefold_test(NAME golden.block_literals COMMAND gatefold_golden_blocks --run_test=golden/block_literals)

if(TARGET hub_config)
    set(hub_config_output ${CMAKE_CURRENT_SOURCE_DIR}/golden/hub_config_output)
    gatefold_test(NAME golden.hub_config_output
                  COMMAND ${CMAKE_COMMAND} "-DPROGRAM=$<TARGET_FILE:hub_config>" "-DARGUMENTS=${hub_config_output}.json"
                  -DEXPECTED=${hub_config_output}.expected -P ${tools}/compare_output.cmake)
endif()

# The names of the blocks are known after the build only.
if(blocks_sources)
    file(GENERATE OUTPUT ${blocks}/ctest.cmake CONTENT "\
set(program \"$<TARGET_FILE:gatefold_golden_blocks>\")
set(environment \"OMP_WAIT_POLICY=passive;GATEFOLD_GOLDEN_DIR=${GATEFOLD_GOLDEN_DIR}\")
include(\"${blocks}/tests.cmake\" OPTIONAL RESULT_VARIABLE built)
if(NOT built)
    add_test(golden.blocks_are_not_built block_generator)
endif()
")
    set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${blocks}/ctest.cmake)
endif()
