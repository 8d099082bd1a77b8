# The kinds that ask the compiler, not a program: header, static, compile_fail, budget.

# ---- header: each header alone, one test per folder and compiler -----------------------------------------------------
file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${include_dir}/gatefold ${include_dir}/gatefold/*.hpp)
set(header_folders)
foreach(header IN LISTS headers)
    get_filename_component(folder ${header} DIRECTORY)
    list(APPEND header_folders "${folder}/")  # the slash keeps the top folder from being an empty element
endforeach()
list(REMOVE_DUPLICATES header_folders)

foreach(compiler IN LISTS GATEFOLD_COMPILERS)
    gatefold_compiler_name(tag ${compiler})
    foreach(folder IN LISTS header_folders)
        string(REGEX REPLACE "/$" "" folder "${folder}")
        if(folder STREQUAL "")
            set(area top)
        else()
            string(REPLACE "/" "_" area ${folder})
        endif()
        gatefold_test(NAME header.${area}.${tag}
            COMMAND ${python} ${tools}/headers.py --include ${include_dir} "--folder=${folder}" --compiler ${compiler}
                    -- ${native} ${GATEFOLD_WARNINGS})
    endforeach()
    gatefold_test(NAME header.macro_traps.${tag}
        COMMAND ${python} ${tools}/headers.py --include ${include_dir} --compiler ${compiler} --traps -- ${native})
endforeach()

# ---- static: files that are nothing but static_asserts ---------------------------------------------------------------
file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/static/*.cpp)
foreach(file IN LISTS files)
    get_filename_component(area ${file} NAME_WE)
    foreach(compiler IN LISTS GATEFOLD_COMPILERS)
        gatefold_compiler_name(tag ${compiler})
        gatefold_test(NAME static.${area}.${tag}
            COMMAND ${compiler} -std=c++20 -fsyntax-only -I ${include_dir} -I ${PROJECT_SOURCE_DIR} ${GATEFOLD_WARNINGS} ${file})
    endforeach()
endforeach()

# ---- compile_fail: a good and a bad variant in one file, and the sentence --------------------------------------------
file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/compile_fail/*.cpp)
foreach(file IN LISTS files)
    get_filename_component(area ${file} NAME_WE)
    foreach(compiler IN LISTS GATEFOLD_COMPILERS)
        gatefold_compiler_name(tag ${compiler})
        gatefold_test(NAME compile_fail.${area}.${tag}
            COMMAND ${python} ${tools}/compile_pair.py --compiler ${compiler} ${file} -- -I ${include_dir})
    endforeach()
endforeach()
gatefold_test(NAME compile_fail.every_rule_has_a_pair
    COMMAND ${python} ${tools}/config_rules.py --compiler ${CMAKE_CXX_COMPILER} --include ${include_dir}
            --pairs ${CMAKE_CURRENT_SOURCE_DIR}/compile_fail)

# ---- property.AREA_bits: a program whose output no compiler, instruction set or contraction mode may change -------------
# Where a cross compiler for 64-bit Arm and its emulator are found (Debian: g++-aarch64-linux-gnu, qemu-user), there too.
find_program(GATEFOLD_AARCH64_COMPILER aarch64-linux-gnu-g++)
find_program(GATEFOLD_AARCH64_EMULATOR qemu-aarch64)
set(cross)
if(GATEFOLD_AARCH64_COMPILER AND GATEFOLD_AARCH64_EMULATOR)
    set(cross --cross ${GATEFOLD_AARCH64_COMPILER} ${GATEFOLD_AARCH64_EMULATOR})
endif()
# A program with a committed list of hashes beside it needs no other compiler to compare with: one test for each.
file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/property/*_bits.cpp)
set(bits_command ${python} ${tools}/bits.py --include ${include_dir} --include ${PROJECT_SOURCE_DIR})
foreach(file IN LISTS files)
    get_filename_component(area ${file} NAME_WE)
    string(REGEX REPLACE "cpp$" "json" committed ${file})
    if(NOT EXISTS ${committed})
        gatefold_test(NAME property.${area}.every_compiler TIMEOUT 900 LABELS slow
            COMMAND ${bits_command} ${cross} ${file} ${GATEFOLD_COMPILERS})
    else()
        set(other_target ${cross})
        foreach(compiler IN LISTS GATEFOLD_COMPILERS)
            gatefold_compiler_name(tag ${compiler})
            gatefold_test(NAME property.${area}.${tag} TIMEOUT 1200 LABELS slow
                COMMAND ${bits_command} ${other_target} ${file} ${compiler})
            set(other_target)
        endforeach()
    endif()
endforeach()
# The machine code of the AMX kernels, on the unit of the processor or on one in software.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(threads ${OpenMP_CXX_FLAGS})
    foreach(compiler IN LISTS GATEFOLD_COMPILERS)
        gatefold_compiler_name(tag ${compiler})
        gatefold_test(NAME property.tile_instructions.${tag} TIMEOUT 900
            COMMAND ${bits_command} "--variant=-O1 -march=native -mamx-tile -mamx-bf16 ${threads}"
                    ${CMAKE_CURRENT_SOURCE_DIR}/property/tile_instructions.cpp ${compiler})
        set(threads)  # the other compiler may have no runtime for them
    endforeach()
endif()

# ---- static.micro_kernels: what the compiler made of the main loops ---------------------------------------------------
find_program(GATEFOLD_OBJDUMP objdump)
if(GATEFOLD_OBJDUMP AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    gatefold_test(NAME static.micro_kernels TIMEOUT 600 LABELS slow
        COMMAND ${python} ${tools}/disassembly.py --include ${include_dir} --compiler ${CMAKE_CXX_COMPILER}
                ${CMAKE_CURRENT_SOURCE_DIR}/disassembly/kernels.cpp)
endif()

# ---- static.symbols: what a translation unit instantiates, and what not -----------------------------------------------
find_program(GATEFOLD_NM nm)
file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/symbols/*.cpp)
if(NOT GATEFOLD_NM OR NOT EXISTS ${include_dir}/gatefold/gatefold.hpp)
    set(files)
endif()
foreach(file IN LISTS files)
    get_filename_component(area ${file} NAME_WE)
    gatefold_test(NAME static.symbols.${area}
        COMMAND ${python} ${tools}/symbols.py --compiler ${CMAKE_CXX_COMPILER} ${file} -- -I ${include_dir} ${native})
endforeach()

# ---- budget: compile time and object size, measured with g++ ---------------------------------------------------------
set(gxx)
foreach(compiler IN LISTS GATEFOLD_COMPILERS)
    gatefold_compiler_name(tag ${compiler})
    if(tag STREQUAL "gcc")
        set(gxx ${compiler})
    endif()
endforeach()
if(gxx AND GATEFOLD_HAS_MARCH_NATIVE AND EXISTS ${include_dir}/gatefold/gatefold.hpp)
    set(budget_command ${python} ${tools}/budget.py --compiler ${gxx} --include ${include_dir})
    set(budget_folder ${CMAKE_CURRENT_SOURCE_DIR}/budget)
    gatefold_test(NAME budget.umbrella COMMAND ${budget_command} --source ${budget_folder}/umbrella.cpp --time 1.6)
    gatefold_test(NAME budget.layer COMMAND ${budget_command} --source ${budget_folder}/layer.cpp --time 5 --object 300000)
    # The two named routers that cost most.
    gatefold_test(NAME budget.named_routers TIMEOUT 600 LABELS slow COMMAND ${budget_command}
                  --source ${budget_folder}/moe_plus_plus.cpp ${budget_folder}/phi_moe.cpp --time 5 --object 300000)
    set_tests_properties(budget.umbrella budget.layer budget.named_routers PROPERTIES RUN_SERIAL ON)
endif()

# ---- static.same_classes_in_cu: the classes a .cu file sees are those a .cpp file sees ----------------------------------
if(gatefold_has_cuda AND EXISTS ${include_dir}/gatefold/gatefold.hpp)
    gatefold_test(NAME static.same_classes_in_cu COMMAND ${python} ${tools}/same_classes.py --cxx ${CMAKE_CXX_COMPILER}
                  --nvcc ${CMAKE_CUDA_COMPILER} --include ${include_dir})
endif()
