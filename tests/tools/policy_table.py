"""The tables of docs/routers.md: which policy, which named router, which loss is tested how, read from the tests.

    policy_table.py --root DIR [--generated DIR]          fails if docs/routers.md, or examples/routers, is out of date
    policy_table.py --root DIR --generated DIR --write    writes the tables anew

--generated is the build's folder golden_blocks, where the tests of golden models are written; where it is empty (there
are no golden data) nobody is blamed for what is not there. Out of date is a table with other rows, with a number where
there is nothing any more or the other way round, or with a number twice as large as what the tests hold.

A configuration that a test names (a braced list of fields, a named router, a variant by with()) counts for every policy
in it, fields left out with their defaults. Policies, defaults and named routers are read from the headers, so a new one
has a row without anything being changed here.
"""
import argparse
import collections
import difflib
import itertools
import pathlib
import re
import sys

COLUMNS = ("forward", "backward", "oracle", "golden", "difference")
# A default value says something only where another field is used as well.
MEANS_NOTHING_WITHOUT = {"noise_on": "noise", "masked": "group_by", "scaled": "scale"}
NAME = re.compile(r"[A-Za-z_]\w*")


def without_comments(text):
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"'
    return re.sub(pattern, lambda m: '""' if m[0][0] == '"' else " ", text, flags=re.S)


def closing(text, at):
    """The index of the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(text)):
        depth += text[i] in "({["
        depth -= text[i] in ")}]"
        if depth == 0:
            return i
    return len(text) - 1


def split(text):
    """The parts of a list between commas that stand in no bracket."""
    parts, depth, first = [], 0, 0
    for i, c in enumerate(text):
        depth += c in "({["
        depth -= c in ")}]"
        if c == "," and depth == 0:
            parts.append(text[first:i].strip())
            first = i + 1
    return [p for p in parts + [text[first:].strip()] if p]


class Headers:
    """Structs, enumerations and named routers of the library."""

    def __init__(self, include):
        config = (include / "config.hpp").read_text()
        self.summaries = {}
        for m in re.finditer(r"((?:^///[^\n]*\n)+)enum class (\w+)", config, re.M):
            self.summaries[m[2]] = " ".join(re.findall(r"///\s*(.*)", m[1])).strip()
        plain = without_comments(config)
        self.enums = {m[1]: [NAME.match(e)[0] for e in split(m[2])] for m in re.finditer(r"enum class (\w+) \{(.*?)\}", plain, re.S)}
        self.structs = {}  # name -> {field: (type, default)}
        for m in re.finditer(r"struct (\w+) \{(.*?)\n\};", plain, re.S):
            fields = {}
            for line in re.findall(r"^ {4}([\w:]+) ([^;()]*);", m[2], re.M):
                for one in split(line[1]):
                    name, _, value = one.partition("=")
                    fields[name.strip()] = (line[0], value.strip())
            if fields:
                self.structs[m[1]] = fields
        self.routers = self.named_routers(without_comments((include / "moe/routers.hpp").read_text()))
        losses = [include / "moe/losses.hpp", include / "moe/losses_regularisers.hpp"]
        text = "".join(without_comments(f.read_text()) for f in losses)
        spaces = [text[m.end():closing(text, m.end() - 1)] for m in re.finditer(r"v0::losses \{", text)]
        self.losses = [name for space in spaces for name in re.findall(r"^(?:struct|using) (\w+) [{=]", space, re.M)]
        balance = without_comments((include / "moe/balance.hpp").read_text())
        self.controllers = re.findall(r"^struct (\w+) \{", balance, re.M)

    def named_routers(self, text):
        routers = {}
        for m in re.finditer(r"constexpr router_config (\w+)\([^)]*\) \{\s*return (\{.*?\});", text, re.S):
            routers[m[1]] = self.fields_of(m[2])
        for m in re.finditer(r"inline constexpr router_config (.*?);", text, re.S):
            for one in split(m[1]):
                name = NAME.match(one)[0]
                value = one[len(name):].strip()
                routers[name] = self.value_of(value.lstrip("= \n"), routers)
        place = {n: re.search(r"(?:router_config|,)\s+" + n + r"\b", text).start() for n in routers}
        return dict(sorted(routers.items(), key=lambda item: place[item[0]]))

    def value_of(self, text, routers):
        if text.startswith("{"):
            return self.fields_of(text)
        if text.startswith("with("):
            base, *changes = split(text[5:closing(text, 4)])
            value = dict(routers[base])
            for field, new in zip(changes[::2], changes[1::2]):
                value[field.split("::")[-1]] = new
            return value
        return dict(routers[text.split("(")[0]])

    @staticmethod
    def fields_of(braced):
        value = {}
        for part in split(braced[1:closing(braced, 0)]):
            m = re.match(r"\.(\w+)\s*=?\s*(.*)", part, re.S)
            if m:
                value[m[1]] = m[2]
        return value


class Policies:
    """Turns configurations into sets of policies: (struct, field, value)."""

    def __init__(self, headers):
        self.headers = headers
        self.rows = []  # every policy, in the order of the headers
        for struct in ("router_config", "capacity_config", "shared_config", "free_experts", "config"):
            for field, (kind, default) in headers.structs.get(struct, {}).items():
                if kind in headers.enums:
                    if struct != "shared_config":
                        self.rows += [(struct, field, e) for e in headers.enums[kind] if (struct, e) != ("capacity_config", "none")]
                elif kind == "bool" and not field.startswith("allow_") or (struct, field) in (
                    ("router_config", "scale"),
                    ("router_config", "noise"),
                    ("shared_config", "ffn"),
                    ("config", "latent"),
                    ("config", "dropout"),
                ):
                    self.rows.append((struct, field, "set"))
                elif struct == "free_experts":
                    self.rows.append((struct, field, "set"))

    def of(self, struct, fields, defaults=True):
        found = set()
        for field, (kind, default) in self.headers.structs[struct].items():
            if kind in self.headers.enums:
                value = fields.get(field, default if defaults else "")
                guard = MEANS_NOTHING_WITHOUT.get(field)
                if field not in fields and guard and guard not in fields:
                    continue
                # A choice between values stands for each of them.
                for one in re.findall(r"\b" + kind + r"::(\w+)", value):
                    if one in self.headers.enums[kind]:
                        found.add((struct, field, one))
            elif field in fields and fields[field] not in ("0", "false", ""):
                found.add((struct, field, "set"))
        return found

    def kind_of(self, before, fields):
        """Which struct a braced list of fields is; None for another one."""
        names = set(fields)
        m = re.search(r"\.(router|capacity|shared|free) = $", before)
        if m:
            kind = {"router": "router_config", "capacity": "capacity_config", "shared": "shared_config", "free": "free_experts"}[m[1]]
            return kind if names <= set(self.headers.structs[kind]) else None
        m = re.search(r"\b(router_config|capacity_config|shared_config|free_experts|config|\w*options\w*)\b[ \w]*$", before[-60:])
        if m:
            return m[1] if m[1] in self.headers.structs else None
        # The last one knows fewest fields that others have too.
        for kind in ("router_config", "capacity_config", "free_experts", "config", "shared_config"):
            if names <= set(self.headers.structs[kind]) and not names <= {"scale", "noise", "epsilon", "threshold", "limit"}:
                return kind
        return None


class Use:
    """One configuration in a file: its policies, whether they are those of a whole router, the array it stands in."""

    def __init__(self, policies, array=None, router=None):
        self.policies, self.array, self.router = policies, array, router


def kind_of_router(policies):
    """What makes a router the same as another but for numbers and precisions."""
    fields = ("weights", "logits_in", "scores_in")
    return frozenset(p for p in policies if p[0] == "router_config" and p[1] not in fields)


def uses_of(text, headers, policies):
    uses, taken = [], [False] * len(text)
    arrays = [(m.start(), m[1]) for m in re.finditer(r"constexpr [\w:]+ (\w+)\[\]", text)]

    def add(found, whole, at, end):
        array = next((name for start, name in reversed(arrays) if start < at and at < closing(text, text.index("{", start))), None)
        uses.append(Use(found, array, kind_of_router(found) if whole else None))
        for i in range(at, end):
            taken[i] = True

    bare = re.search(r"using namespace (?:\w+::)*routers;", text)
    named = re.compile(r"(?:\brouters::|\br::" + (r"|(?<=[(, ])" if bare else "") + r")(" + "|".join(sorted(headers.routers, key=len, reverse=True)) + r")\b")
    for m in named.finditer(text):
        if re.search(r"namespace $", text[:m.start()][-12:]) or text[m.end():m.end() + 1] == '"':
            continue
        value = dict(headers.routers[m[1]])
        head = re.search(r"\bwith\(\s*(?:\w+::)*$", text[:m.start()][-40:])
        end = m.end()
        if head:
            opening = text.rfind("(", 0, m.start())
            end = closing(text, opening)
            _, *changes = split(text[opening + 1:end])
            for field, new in zip(changes[::2], changes[1::2]):
                value[field.split("::")[-1]] = new
        add(policies.of("router_config", value), True, m.start(), end)
    for m in re.finditer(r"\bwith\(", text):
        if taken[m.start()] or taken[m.end()]:
            continue
        end = closing(text, m.end() - 1)
        _, *changes = split(text[m.end():end]) or [""]
        value = {f.split("::")[-1]: new for f, new in zip(changes[::2], changes[1::2]) if f.startswith("&")}
        if value and not any(taken[m.end():end]):
            add(policies.of("router_config", value, defaults=False), False, m.start(), end)
    for m in re.finditer(r"\{(?=\s*\.\w+ ?=)", text):
        end = closing(text, m.start())
        fields = headers.fields_of(text[m.start():end + 1])
        kind = policies.kind_of(text[:m.start()], fields)
        if kind:
            found = policies.of(kind, fields)
            if kind == "shared_config" and "act" in fields:
                found.add(("config", "act", fields["act"].split("::")[-1]))
            if kind == "config" and "router" not in fields and fields.get("experts", "1") != "1":
                found |= policies.of("router_config", {})
            add(found, kind == "router_config", m.start(), end if kind != "config" else m.end())
    # What is named outside of configurations: arguments of templates, loops over enumerators.
    for kind, values in headers.enums.items():
        places = [(s, f) for s in headers.structs for f, (k, _) in headers.structs[s].items() if k == kind and s != "shared_config"]
        if len(places) != 1:
            continue
        for m in re.finditer(r"\b" + kind + r"::(\w+)", text):
            asked = re.search(r"(\bcase|[=!]=) (\w+::)*$", text[max(0, m.start() - 40):m.start()])
            if not taken[m.start()] and not asked and m[1] in values:
                uses.append(Use({(*places[0], m[1])}))
    for m in re.finditer(r"\blosses::(\w+)", text):
        if m[1] in headers.losses:
            uses.append(Use({("losses", "", m[1])}))
    for m in re.finditer(r"\b(" + "|".join(headers.controllers) + r")\b", text):
        uses.append(Use({("controllers", "", m[1])}))
    return uses


class Tests:
    """Test files, the headers they share, and which columns each stands for."""

    def __init__(self, root, generated):
        self.root, self.texts = root, {}
        self.columns = collections.defaultdict(set)  # file or (header, array) -> columns
        includers = collections.defaultdict(list)
        for folder in ("unit", "property", "gradient", "golden", "oracle_cmp"):
            for file in sorted((root / "tests" / folder).glob("*_test.cpp")):
                own = self.text(file)
                local = self.local_headers(file)
                everything = own + "".join(self.text(h) for h in local)
                raw = self.raw(file) + "".join(self.raw(h) for h in local)
                if folder == "golden" and not re.search("safetensors|load_block", everything):
                    continue  # about configurations, not about numbers
                columns = {"forward"}
                if folder == "gradient" or re.search(r"\b\w*backward\(|\bcheck_blocks\b", everything):
                    columns.add("backward")
                if folder == "oracle_cmp" or re.search(r'#include [<"](tests/)?oracle(\.hpp|/(?!safetensors))', raw) and folder != "golden":
                    columns.add("oracle")
                if folder == "golden":
                    columns.add("golden")
                if folder == "gradient":
                    columns.add("difference")
                self.columns[file] |= columns
                for header in local:
                    includers[header].append((own, columns))
        for header, users in includers.items():
            for own, columns in users:
                self.columns[header] |= columns
            for array in re.findall(r"constexpr [\w:]+ (\w+)\[\]", self.text(header)):
                mentioned = [columns for own, columns in users if re.search(r"\b" + array + r"\b", own)]
                for columns in mentioned:
                    self.columns[header, array] |= columns
        # One suite of a generated file is what another test has as a file.
        self.has_generated = False
        for file in sorted(generated.glob("blocks_*.cpp")) if generated else []:
            for i, suite in enumerate(self.text(file).split("BOOST_AUTO_TEST_SUITE(")):
                self.texts[file, i] = suite
                self.columns[file, i] = {"forward", "golden"} | ({"backward"} if "gradient" in suite[:suite.find(")")] else set())
                self.has_generated = True

    def raw(self, file):
        return file.read_text()

    def text(self, file):
        if file not in self.texts:
            self.texts[file] = without_comments(self.raw(file))
        return self.texts[file]

    def local_headers(self, file, seen=None):
        seen = set() if seen is None else seen
        for name in re.findall(r'#include [<"]([^>"]+)[>"]', self.raw(file)):
            for header in (file.parent / name, self.root / name, self.root / "tests" / name):
                header = header.resolve()
                inside = header.exists() and (self.root / "tests") in header.parents
                if inside and not re.search(r"tests/oracle(\.hpp|/)", header.as_posix()) and header not in seen:
                    seen.add(header)
                    self.local_headers(header, seen)
        return sorted(seen)

    def count(self, headers, policies):
        """policy -> column -> number of configurations, and the same for named routers."""
        by_policy = collections.defaultdict(collections.Counter)
        by_router = collections.defaultdict(collections.Counter)
        for file in list(self.texts):
            if file not in self.columns:
                continue
            for use in uses_of(self.texts[file], headers, policies):
                columns = self.columns.get((file, use.array)) or self.columns[file]
                for column in columns:
                    for policy in use.policies:
                        by_policy[policy][column] += 1
                    if use.router:
                        by_router[use.router][column] += 1
        return by_policy, by_router


def cells(counts):
    return " | ".join(str(counts[c]) if counts[c] else "–" for c in COLUMNS)


HEAD = "forward | backward | oracle | reference golden | finite difference"


def policy_tables(headers, policies, by_policy):
    lines, last = [], None
    for struct, field, value in policies.rows:
        kind = headers.structs[struct][field][0]
        title = {"router_config": ".router", "capacity_config": ".capacity", "shared_config": ".shared", "free_experts": ".free", "config": ""}[struct]
        axis = f"`{title}.{field}`"
        if last is None:
            lines += [f"| field | value | {HEAD} |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
        shown = f"`{kind}::{value}`" if kind in headers.enums else "set"
        lines.append(f"| {axis if axis != last else ''} | {shown} | {cells(by_policy[struct, field, value])} |")
        last = axis
    return lines


def loss_tables(headers, by_policy):
    lines = [f"| loss or controller | {HEAD} |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [f"| `losses::{name}` | {cells(by_policy['losses', '', name])} |" for name in headers.losses]
    lines += [f"| `{name}` | {cells(by_policy['controllers', '', name])} |" for name in headers.controllers]
    return lines


def router_tables(headers, policies, by_router):
    equal = collections.defaultdict(list)
    for name, value in headers.routers.items():
        equal[tuple(sorted((f, re.sub(r"\s+", " ", v)) for f, v in value.items()))].append(name)
    lines = [f"| named router | {HEAD} |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for names in equal.values():
        counts = by_router[kind_of_router(policies.of("router_config", headers.routers[names[0]]))]
        lines.append(f"| {', '.join(f'`{n}`' for n in names)} | {cells(counts)} |")
    return lines


def stale(written, found, complete):
    """Whether a line of a table claims what the tests do not hold, or hides what they do."""
    old, new = ([cell.strip() for cell in line.split("|")] for line in (written, found))

    def is_true(a, b):
        missing = b == "–" or b.isdigit() and a.isdigit() and 2 * int(b) < int(a)
        return a == b or a.isdigit() and (b.isdigit() or b == "–") and not (missing and complete)

    return len(old) != len(new) or not all(map(is_true, old, new))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--generated", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    root = options.root.resolve()

    headers = Headers(root / "include/gatefold")
    policies = Policies(headers)
    tests = Tests(root, options.generated)
    if options.write and not tests.has_generated:
        sys.exit("--write needs --generated: tests/golden_blocks of a build that has the golden data")
    by_policy, by_router = tests.count(headers, policies)
    tables = {
        "policies": policy_tables(headers, policies, by_policy),
        "losses": loss_tables(headers, by_policy),
        "routers": router_tables(headers, policies, by_router),
    }

    page = root / "docs/routers.md"
    old = new = page.read_text()
    for name, lines in tables.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if begin not in new or end not in new:
            sys.exit(f"docs/routers.md has no place for the table {name}: {begin.strip()} {end}")
        first, rest = new.split(begin)
        new = first + begin + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1]

    problems = []
    described = set(re.findall(r"`(\w+)`", re.sub(r"<!-- begin .*?<!-- end", "", new, flags=re.S)))
    problems += [f"docs/routers.md does not say what `{n}` is" for n in headers.routers if n not in described]
    shown = "".join(f.read_text() for f in (root / "examples/routers").glob("*.cpp"))
    listed = re.findall(r'\.add<.*?>\(\s*"(\w+)"\)', shown, re.S)
    problems += [f"examples/routers does not show {n}: add it to one of its lists" for n in headers.routers if n not in listed]
    problems += [f"examples/routers shows {n}, which routers.hpp does not have" for n in listed if n not in headers.routers]
    if options.write:
        page.write_text(new)
    elif any(stale(*lines, tests.has_generated) for lines in itertools.zip_longest(old.splitlines(), new.splitlines(), fillvalue="")):
        difference = difflib.unified_diff(old.splitlines(), new.splitlines(), "docs/routers.md", "the tests", lineterm="", n=0)
        problems.append("docs/routers.md is out of date; run tests/tools/policy_table.py --root . --generated BUILD/tests/golden_blocks --write\n" + "\n".join(difference))
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(headers.routers)} named routers, {len(policies.rows)} policies, {len(headers.losses)} losses")


if __name__ == "__main__":
    main()
