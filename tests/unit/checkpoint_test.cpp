// ctest: heavy
// Checkpoints: what is written comes back to the bit, a resumed run is the uninterrupted one, and a writer that is
// killed at any moment leaves the old file or the new one.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include <gatefold/nn.hpp>
#include <gatefold/train.hpp>

namespace gf = gatefold;

namespace {

template <class T>
using model =
    gf::decoder<gf::decoder_config{.vocabulary = 17,
                                   .hidden = 8,
                                   .layers = 2,
                                   .heads = 2,
                                   .context = 12,
                                   .layer = {.ffn = 8,
                                             .experts = 4,
                                             .top_k = 2,
                                             .router = gf::with(gf::routers::deepseek_v3, &gf::router_config::groups, 1,
                                                                &gf::router_config::kept_groups, 1,
                                                                &gf::router_config::group_by, gf::group_key::none)}},
                T>;

/// A folder of its own, removed with what is in it.
struct folder {
    std::string path;
    folder() {
        char name[] = "/tmp/gatefold-checkpoint-XXXXXX";
        path = mkdtemp(name);
    }
    ~folder() {
        for (const char* file : {"/a.safetensors", "/a.safetensors.tmp", "/b.safetensors"})
            std::remove((path + file).c_str());
        rmdir(path.c_str());
    }
};

/// A training run: two sequences of twelve tokens that depend on the step, a controller that moves selection biases.
template <class T>
struct training {
    using D = model<T>;
    gf::context<gf::cpu> ctx{1};
    gf::decoder_weights<D> w = gf::random_decoder_weights<D>(ctx, gf::seed{3});
    gf::decoder_gradients<D> g = gf::make_decoder_gradients<D>(ctx);
    gf::adamw_state<gf::decoder_weights<D>> state = gf::make_adamw_state(ctx, w);
    gf::decoder_tape<D> tape{ctx, 2, 12};
    gf::tensor<float, gf::dyn, D::vocabulary> d = gf::make_tensor<float, gf::dyn, D::vocabulary>(ctx, 24);

    void go_to(gf::index_t steps) {
        while (state.steps < steps) {
            std::vector<std::int32_t> ids(24);
            for (gf::index_t i = 0; i < 24; ++i)
                ids[static_cast<std::size_t>(i)] = static_cast<std::int32_t>((i * i + 3 * i * state.steps) % 17);
            const gf::view<const std::int32_t, gf::dyn> in(ids.data(), {24});
            gf::forward(ctx, w, in, tape, {.layer = {.training = true}});
            gf::cross_entropy(ctx, tape.logits(), in, d);
            gf::backward(ctx, w, tape, d, g);
            for (int l = 0; l < D::layers; ++l) {
                gf::index_t counts[4] = {};
                gf::add_expert_counts(tape.block(l).layer.routing().ids, {counts, {4}});
                for (int e = 0; e < 4; ++e)
                    w.blocks[static_cast<std::size_t>(l)].layer.selection_bias.data()[e] += counts[e] > 12   ? -0.01f
                                                                                            : counts[e] < 12 ? 0.01f
                                                                                                             : 0.0f;
            }
            gf::step(ctx, w, g, state, 0.01);
        }
    }
    /// Every number of the run.
    std::vector<float> all() const {
        std::vector<float> values;
        const auto take = [&](const char*, const auto& slot) {
            if constexpr (!std::is_same_v<std::remove_cvref_t<decltype(slot)>, gf::no_master>)
                for (gf::index_t i = 0; i < slot.size(); ++i) values.push_back(static_cast<float>(slot.data()[i]));
        };
        gf::for_each_parameter(take, w);
        gf::for_each_buffer(take, w);
        gf::for_each_parameter(take, state.first);
        gf::for_each_parameter(take, state.second);
        gf::for_each_parameter(take, state.masters);
        return values;
    }
};

template <class T>
void check_resume() {
    const folder home;
    const std::string path = home.path + "/a.safetensors";
    training<T> whole, first, second;
    whole.go_to(9);
    first.go_to(4);
    gf::save(path, first.w, first.state, {{"note", "half way"}});
    const auto notes = gf::load(second.ctx, path, second.w, second.state);
    BOOST_TEST(second.state.steps == 4);
    BOOST_TEST((second.all() == first.all()));
    BOOST_TEST((std::find(notes.begin(), notes.end(), std::pair<std::string, std::string>("note", "half way")) !=
                notes.end()));
    second.go_to(9);
    BOOST_TEST((second.all() == whole.all()));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(checkpoint)

BOOST_AUTO_TEST_CASE(a_resumed_run_has_the_bits_of_an_uninterrupted_one) {
    check_resume<float>();
    check_resume<gf::bf16>();
}

BOOST_AUTO_TEST_CASE(a_file_that_does_not_fit_changes_nothing) {
    const folder home;
    const std::string path = home.path + "/a.safetensors", other = home.path + "/b.safetensors";
    training<float> run;
    run.go_to(2);
    const auto before = run.all();
    BOOST_CHECK_THROW(gf::load(run.ctx, path, run.w, run.state), gf::file_error);

    gf::safetensors_writer weights_only;
    gf::add_weights(weights_only, "model.", run.w);
    weights_only.write(other);
    BOOST_CHECK_THROW(gf::load(run.ctx, other, run.w, run.state), gf::file_error);
    weights_only.write(other, {{"adamw.steps", "2x"}});
    BOOST_CHECK_THROW(gf::load(run.ctx, other, run.w, run.state), gf::file_error);

    gf::save(path, run.w, run.state);
    BOOST_REQUIRE(truncate(path.c_str(), 2000) == 0);
    BOOST_CHECK_THROW(gf::load(run.ctx, path, run.w, run.state), gf::file_error);
    BOOST_TEST((run.all() == before));
    BOOST_TEST(run.state.steps == 2);
}

BOOST_AUTO_TEST_CASE(a_killed_writer_leaves_the_old_file_or_the_new_one) {
    const folder home;
    const std::string path = home.path + "/a.safetensors";
    // The writer saves step 1, 2, … without a pause, and is killed later each time; small delays are busy ones.
    gf::index_t seen = 0;
    for (int attempt = 0; attempt < 40; ++attempt) {
        const pid_t writer = fork();
        BOOST_REQUIRE(writer >= 0);
        if (writer == 0) {
            training<float> run;
            for (;;) {
                run.go_to(run.state.steps + 1);
                gf::save(path, run.w, run.state);
            }
        }
        usleep(static_cast<useconds_t>(3000 + attempt * 531));
        kill(writer, SIGKILL);
        waitpid(writer, nullptr, 0);
        if (access(path.c_str(), F_OK) != 0) continue;
        training<float> loaded, expected;
        BOOST_CHECK_NO_THROW(gf::load(loaded.ctx, path, loaded.w, loaded.state));
        expected.go_to(loaded.state.steps);
        BOOST_TEST((loaded.all() == expected.all()));
        seen = (std::max)(seen, loaded.state.steps);
    }
    BOOST_TEST(seen >= 1);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
