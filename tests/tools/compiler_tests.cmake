# The kinds that ask the compiler, not a program: header, static, compile_fail, budget.
set(include_dir ${PROJECT_SOURCE_DIR}/include)
set(native)
if(GATEFOLD_NATIVE AND GATEFOLD_HAS_MARCH_NATIVE)
    set(native -march=native)
endif()

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
            COMMAND ${python} ${tools}/headers.py --include ${include_dir} --folder "${folder}" --compiler ${compiler}
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
