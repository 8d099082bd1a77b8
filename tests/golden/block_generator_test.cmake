# A new folder of golden data is a new test without new code; one that no configuration expresses is a failing test with
# the reason, unless it is excused; an excuse that is not needed is an error. GENERATOR, GOLDEN, WORK.
cmake_minimum_required(VERSION 3.25)

set(data ${WORK}/data)
set(out ${WORK}/out)
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${data}/models ${data}/gradients/blocks ${out})
file(COPY ${GOLDEN}/models/olmoe ${GOLDEN}/models/llama DESTINATION ${data}/models)
file(COPY ${GOLDEN}/gradients/blocks/olmoe.safetensors DESTINATION ${data}/gradients/blocks)
file(WRITE ${WORK}/excuses "# none\n")

# generated(STATUS WORDS…): writes the tests; --check must end with STATUS, and what is said and written has the words.
function(generated status)
    execute_process(COMMAND ${GENERATOR} ${data} ${WORK}/excuses ${out} 2 OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
    file(READ ${out}/tests.cmake tests)
    file(READ ${out}/blocks_1.cpp first)
    file(READ ${out}/blocks_2.cpp second)
    string(APPEND said "${tests}${first}${second}")
    foreach(words IN LISTS ARGN)
        string(FIND "${said}" "${words}" place)
        if(place EQUAL -1)
            message(SEND_ERROR "not there: ${words}\nin: ${said}")
        endif()
    endforeach()
    execute_process(COMMAND ${GENERATOR} ${data} ${WORK}/excuses ${out} --check RESULT_VARIABLE result OUTPUT_QUIET)
    if(NOT result EQUAL status)
        message(SEND_ERROR "--check ended with ${result}, expected ${status}; the tests are ${said}")
    endif()
endfunction()

generated(0 "1 models, 1 with gradients, 2 tests, 0 excused" "models without a block: llama" "golden.block_models.olmoe"
          "check_model<gf::config{.hidden = 64, .ffn = 24, .experts = 12, .top_k = 3, .router = gf::routers::olmoe}>(\"olmoe\")")

# A folder that came after the build is noticed, and is a test after the next one.
file(COPY ${GOLDEN}/models/mixtral DESTINATION ${WORK})
file(RENAME ${WORK}/mixtral ${data}/models/new-one)
execute_process(COMMAND ${GENERATOR} ${data} ${WORK}/excuses ${out} --check RESULT_VARIABLE result OUTPUT_VARIABLE said)
if(result EQUAL 0 OR NOT said MATCHES "build again")
    message(SEND_ERROR "a new folder was not noticed: ${said}")
endif()
generated(0 "2 models, 1 with gradients, 3 tests" "golden.block_models.new-one" "BOOST_AUTO_TEST_CASE(of_new_one)")

# What is not understood fails by name.
file(READ ${data}/models/new-one/config.json config)
string(REPLACE "\"num_local_experts\"" "\"moe_magic\": 1, \"num_local_experts\"" strange "${config}")
file(WRITE ${data}/models/new-one/config.json "${strange}")
generated(1 "no configuration: models/new-one: moe_magic: unknown to mixtral"
          "BOOST_ERROR(\"new-one: moe_magic: unknown to mixtral\")")
file(WRITE ${WORK}/excuses "models/new-one: magic is not expressible\n")
generated(0 "not expressible: models/new-one: magic is not expressible" "2 tests, 1 excused")

# An excuse for what can be expressed, and for what is not there.
file(WRITE ${data}/models/new-one/config.json "${config}")
generated(1 "no excuse needed: models/new-one")
file(REMOVE_RECURSE ${data}/models/new-one)
generated(1 "no such block: models/new-one, which is excused")
