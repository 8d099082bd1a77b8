// Published sizes, to the last parameter: total, active with embedding and head, active with the head alone.
#include <gatefold/models/deepseek.hpp>
#include <gatefold/models/gpt_oss.hpp>
#include <gatefold/models/mixtral.hpp>
#include <gatefold/models/olmoe.hpp>
#include <gatefold/models/qwen.hpp>
#include <gatefold/moe/layer.hpp>

namespace m = gatefold::models;
using gatefold::counting;

constexpr bool counts(const m::published_model& model, gatefold::index_t total, gatefold::index_t active,
                      gatefold::index_t without_embedding) {
    return gatefold::fault(model.layer) == nullptr && m::parameters(model) == total &&
           m::active_parameters(model) == active && m::active_parameters(model, counting::head) == without_embedding;
}

static_assert(counts(m::mixtral_8x7b, 46'702'792'704, 12'879'925'248, 12'748'853'248));
static_assert(counts(m::mixtral_8x22b, 140'630'071'296, 39'161'468'928, 38'960'142'336));
static_assert(counts(m::qwen1_5_moe_a2_7b, 14'315'784'192, 2'689'173'504, 2'378'008'576));
static_assert(counts(m::qwen3_30b_a3b, 30'532'122'624, 3'353'032'704, 3'041'867'776));
static_assert(counts(m::qwen3_235b_a22b, 235'093'634'560, 22'190'763'520, 21'568'433'664));
static_assert(counts(m::deepseek_moe_16b, 16'375'728'128, 2'828'650'496, 2'618'935'296));
static_assert(counts(m::deepseek_v2_lite, 15'706'484'224, 2'661'150'208, 2'451'435'008));
static_assert(counts(m::deepseek_v3, 671'026'419'200, 37'552'297'472, 36'625'618'432));
static_assert(counts(m::kimi_k2, 1'026'408'232'448, 32'861'500'928, 31'687'095'808));
static_assert(counts(m::gpt_oss_20b, 20'914'757'184, 4'187'440'704, 3'608'307'264));
static_assert(counts(m::gpt_oss_120b, 116'829'156'672, 5'711'982'912, 5'132'849'472));
static_assert(counts(m::olmoe_1b_7b, 6'919'161'856, 1'282'017'280, 1'178'994'688));

// One Mixtral block, part by part.
static_assert(m::mixtral_8x7b.mixer == 41'943'040);
static_assert(gatefold::expert_parameters(m::mixtral_8x7b.layer) == 176'160'768);
static_assert(gatefold::router_parameters(m::mixtral_8x7b.layer) == 32'768);

// A model's layer is a type like any other.
using block = gatefold::layer<m::deepseek_v3.layer, gatefold::bf16>;
static_assert(block::slots == 8 && block::choices == 256);
