"""Reads Bicep files and says what a compiler would say first.

The tree is tree-sitter-bicep's. What is checked is what goes wrong when files are edited by hand:
names that nothing declares, modules, parameters and outputs that do not fit each other, and what the
compiler's linter warns of by default. Types of resources' properties are the compiler's to check.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

PARSER = Parser(Language(tree_sitter_bicep.language()))

# The functions that the files use, and the types that they return (None: it depends).
FUNCTIONS = {
    "any": None, "concat": "array", "contains": "bool", "empty": "bool", "environment": "object",
    "filter": "array", "guid": "string", "items": "array", "join": "string", "last": None, "length": "int",
    "loadJsonContent": None, "loadTextContent": "string", "range": "array", "replace": "string",
    "resourceGroup": "object", "skip": None, "split": "array", "string": "string",
    "subscription": "object", "subscriptionResourceId": "string", "tenant": "object",
    "toLower": "string", "toUpper": "string", "union": None, "uniqueString": "string",
    "utcNow": "string",
}
DECORATORS = {"description", "allowed", "minLength", "maxLength", "minValue", "maxValue", "batchSize", "secure"}
BOOLEAN_OPERATORS = {"==", "!=", "=~", "!~", "<", "<=", ">", ">=", "&&", "||"}
# The linter's rule no-hardcoded-env-urls: these differ between clouds.
CLOUD_HOSTS = re.compile(
    r"\b(management\.azure\.com|core\.windows\.net|login\.microsoftonline\.com|vault\.azure\.net"
    r"|database\.windows\.net|graph\.windows\.net|batch\.core\.windows\.net|gallery\.azure\.com)\b"
)
BOUNDS = {"minValue": max, "maxValue": min}


def text(node: Node) -> str:
    return node.text.decode()


def line(node: Node) -> int:
    return node.start_point[0] + 1


def named(node: Node) -> list[Node]:
    return [child for child in node.named_children if child.type != "comment"]


def literal(node: Node | None):
    """The value of a literal; None where it is none."""
    if node is None:
        return None
    if node.type == "string" and not any(c.type == "interpolation" for c in node.named_children):
        return "".join(text(c) for c in node.named_children)
    if node.type == "number":
        return int(text(node))
    if node.type == "boolean":
        return text(node) == "true"
    if node.type == "array":
        return [literal(item) for item in named(node)]
    return None


@dataclass
class Symbol:
    """A parameter, variable, resource, module or output."""

    kind: str
    name: str
    node: Node
    type: str | None = None
    value: Node | None = None
    decorators: dict = field(default_factory=dict)
    # Resources: type and API version. Modules: the path.
    target: str = ""
    existing: bool = False
    nullable: bool = False

    @property
    def required(self) -> bool:
        return self.value is None and not self.nullable


class File:
    """A Bicep file: what it declares, and its mistakes."""

    def __init__(self, path: Path):
        self.path = path
        self.source = path.read_text()
        self.root = PARSER.parse(self.source.encode()).root_node
        self.symbols: dict[str, Symbol] = {}
        self.nested: dict[tuple[str, str], Symbol] = {}
        self.outputs: dict[str, Symbol] = {}
        self.mistakes: list[str] = []
        self.used: set[str] = set()
        self.syntax(self.root)
        decorators: dict = {}
        for node in self.root.named_children:
            if node.type == "decorators":
                decorators = self.read_decorators(node)
            elif node.type != "comment":
                self.declare(node, decorators)
                decorators = {}

    def say(self, node: Node, what: str):
        self.mistakes.append(f"{self.path.name}:{line(node)}: {what}")

    def syntax(self, node: Node):
        if node.type == "ERROR" or node.is_missing:
            self.say(node, f"syntax: {text(node)[:60]!r}")
        for child in node.children:
            self.syntax(child)

    def read_decorators(self, node: Node) -> dict:
        found = {}
        for decorator in named(node):
            call = named(decorator)[0]
            name = text(call.child_by_field_name("function"))
            if name not in DECORATORS:
                self.say(decorator, f"unknown decorator @{name}")
            arguments = named(call.child_by_field_name("arguments"))
            found[name] = literal(arguments[0]) if arguments else True
        return found

    def declare(self, node: Node, decorators: dict):
        kind = node.type.removesuffix("_declaration")
        children = named(node)
        if kind in ("target_scope_assignment", "metadata"):
            return
        if kind not in ("parameter", "variable", "resource", "module", "output"):
            self.say(node, f"{kind} is not used in this project")
            return
        symbol = Symbol(kind, text(children[0]), node, decorators=decorators)
        rest = children[1:]
        if kind in ("parameter", "output"):
            symbol.type = text(rest[0]).rstrip("?")
            symbol.nullable = text(rest[0]).endswith("?")
            symbol.value = rest[1] if len(rest) > 1 else None
        elif kind == "variable":
            symbol.value = rest[0]
        else:
            symbol.target = literal(rest[0])
            symbol.value = rest[1]
            symbol.existing = any(child.type == "existing" for child in node.children)
        if "description" not in decorators and kind in ("parameter", "output"):
            self.say(node, f"{symbol.name} has no description")
        table = self.outputs if kind == "output" else self.symbols
        if symbol.name in table:
            self.say(node, f"{symbol.name} is declared twice")
        table[symbol.name] = symbol
        if kind == "resource":
            self.find_nested(symbol)

    def find_nested(self, parent: Symbol):
        """Resources within a resource; they are named PARENT::CHILD."""
        for node in walk(parent.value):
            if node.type == "resource_declaration":
                children = named(node)
                child = Symbol("resource", text(children[0]), node, value=children[2])
                kind, version = parent.target.split("@")
                child.target = f"{kind}/{literal(children[1])}@{version}"
                self.nested[parent.name, child.name] = child

    def resources(self) -> list[Symbol]:
        return [s for s in self.symbols.values() if s.kind == "resource"] + list(self.nested.values())

    def of_kind(self, kind: str) -> list[Symbol]:
        return [s for s in self.symbols.values() if s.kind == kind]


def walk(node: Node):
    yield node
    for child in node.named_children:
        yield from walk(child)


def body_of(node: Node) -> Node:
    """The object of a declaration, within its loop and its condition."""
    if node.type == "for_statement":
        return body_of(node.child_by_field_name("body"))
    if node.type == "if_statement":
        return body_of(named(node)[-1])
    return node


def key_of(prop: Node) -> str:
    key = named(prop)[0]
    return literal(key) if key.type == "string" else text(key)


def properties(node: Node) -> dict[str, Node]:
    """The properties of an object."""
    pairs = [p for p in named(node) if p.type == "object_property" and len(named(p)) == 2]
    return {key_of(pair): named(pair)[1] for pair in pairs}


class Project:
    """All Bicep files below a folder, checked against each other."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = {path.resolve(): File(path) for path in sorted(folder.rglob("*.bicep"))}
        for file in self.files.values():
            self.check(file)

    @property
    def mistakes(self) -> list[str]:
        return [mistake for file in self.files.values() for mistake in file.mistakes]

    def check(self, file: File):
        for symbol in [*file.symbols.values(), *file.outputs.values()]:
            if symbol.value is not None:
                self.visit(file, symbol.value, frozenset())
            if symbol.kind in ("resource", "module"):
                self.depends(file, symbol)
            if symbol.kind == "module":
                self.call(file, symbol)
            if symbol.kind in ("parameter", "output") and symbol.value is not None:
                self.fits(file, symbol.value, symbol.value, symbol)
        for symbol in file.symbols.values():
            # The linter's rules no-unused-params, -vars and -existing-resources.
            counts = symbol.kind in ("parameter", "variable") or symbol.existing
            if counts and symbol.name not in file.used:
                file.say(symbol.node, f"{symbol.kind} {symbol.name} is not used")
        for node in walk(file.root):
            if node.type == "string_content" and CLOUD_HOSTS.search(text(node)):
                file.say(node, "names a host that differs between clouds: use environment()")

    def visit(self, file: File, node: Node, scope: frozenset):
        """Every name has to be declared: in the file, by a loop or by a lambda."""
        kind = node.type
        if kind == "identifier":
            self.name(file, node, scope)
        elif kind == "for_statement":
            self.loop(file, node, scope)
        elif kind == "call_expression":
            function = node.child_by_field_name("function")
            if text(function) not in FUNCTIONS:
                file.say(function, f"unknown function {text(function)}")
            for argument in named(node.child_by_field_name("arguments")):
                # The grammar binds a lambda tighter than the operators of its body.
                lambdas = [n for n in walk(argument) if n.type == "lambda_expression"]
                own = {text(named(n)[0]) for n in lambdas}
                self.visit(file, argument, scope | own)
        elif kind == "lambda_expression":
            for child in named(node)[1:]:
                self.visit(file, child, scope)
        elif kind == "object_property":
            children = named(node)
            key = children[0]
            if key.type == "resource_declaration":
                self.visit(file, named(key)[2], scope)
                return
            if key.type == "string":
                for part in walk(key):
                    if part.type == "interpolation":
                        self.visit(file, named(part)[0], scope)
                if re.fullmatch(r"[A-Za-z_]\w*", literal(key) or ""):
                    file.say(key, f"'{literal(key)}' needs no quotes")
            for child in children[1:]:
                self.visit(file, child, scope)
        elif kind == "resource_expression":
            parent, child = (text(n) for n in named(node)[:2])
            file.used.add(parent)
            if (parent, child) not in file.nested:
                file.say(node, f"{parent}::{child} is not declared")
        elif kind == "resource_declaration":
            self.visit(file, named(node)[2], scope)
        else:
            if kind == "member_expression":
                self.output(file, node)
            for child in named(node):
                self.visit(file, child, scope)

    def name(self, file: File, node: Node, scope: frozenset):
        if text(node) in scope:
            return
        if text(node) not in file.symbols:
            file.say(node, f"{text(node)} is not declared")
        file.used.add(text(node))

    def loop(self, file: File, node: Node, scope: frozenset):
        children = named(node)
        own = {text(n) for n in walk(children[0]) if n.type in ("identifier", "loop_variable", "loop_enumerator")}
        self.visit(file, children[1], scope)
        self.visit(file, node.child_by_field_name("body"), scope | own)

    def output(self, file: File, node: Node):
        """`MODULE.outputs.NAME`, `MODULE[i].outputs.NAME`: the module's file has to have it."""
        outer = node.child_by_field_name("object")
        if outer.type != "member_expression":
            return
        if text(outer.child_by_field_name("property")) != "outputs":
            return
        base = outer.child_by_field_name("object")
        if base.type == "subscript_expression":
            base = base.child_by_field_name("object")
        symbol = file.symbols.get(text(base))
        if symbol is None or symbol.kind != "module":
            file.say(node, f"{text(base)} is not a module")
            return
        target = self.module_file(file, symbol)
        wanted = text(node.child_by_field_name("property"))
        if target and wanted not in target.outputs:
            file.say(node, f"{symbol.target} has no output {wanted}")

    def module_file(self, file: File, module: Symbol) -> File | None:
        return self.files.get((file.path.parent / module.target).resolve())

    def depends(self, file: File, symbol: Symbol):
        """The linter's rule no-unnecessary-dependson."""
        block = properties(body_of(symbol.value))
        explicit = [text(n) for n in named(block.pop("dependsOn"))] if "dependsOn" in block else []
        used = {text(n) for value in block.values() for n in walk(value) if n.type == "identifier"}
        for name in explicit:
            if name in used:
                file.say(symbol.node, f"{symbol.name} need not say that it depends on {name}")

    def call(self, file: File, module: Symbol):
        """A module's parameters: all that it needs, none that it does not know, each of its type."""
        target = self.module_file(file, module)
        if target is None:
            file.say(module.node, f"no such module: {module.target}")
            return
        block = properties(body_of(module.value))
        given = properties(block["params"]) if "params" in block else {}
        for parameter in target.of_kind("parameter"):
            if parameter.name in given:
                self.fits(file, given[parameter.name], given[parameter.name], parameter)
            elif parameter.required:
                file.say(module.node, f"{module.target} needs {parameter.name}")
        known = {parameter.name for parameter in target.of_kind("parameter")}
        for name in given.keys() - known:
            file.say(given[name], f"{module.target} knows no {name}")

    def fits(self, file: File, at: Node, value: Node, target: Symbol):
        """Whether a value is of the type that a parameter or output has, and within its bounds."""
        if value.type == "ternary_expression":
            self.fits(file, at, value.child_by_field_name("consequence"), target)
            self.fits(file, at, value.child_by_field_name("alternative"), target)
            return
        found = self.type_of(file, value)
        if found and target.type not in (found, "any"):
            file.say(at, f"{target.name} is {target.type}, not {found}")
        allowed = target.decorators.get("allowed")
        if literal(value) is not None:
            if allowed and literal(value) not in allowed:
                file.say(at, f"{target.name} can't be {literal(value)!r}")
            return
        source = file.symbols.get(text(value)) if value.type == "identifier" else None
        if source is None or source.kind != "parameter":
            return
        if allowed and not set(source.decorators.get("allowed") or ["?"]) <= set(allowed):
            file.say(at, f"{source.name} allows more than {target.name}")
        for bound, tighter in BOUNDS.items():
            mine, other = source.decorators.get(bound), target.decorators.get(bound)
            if None not in (mine, other) and tighter(mine, other) != mine:
                file.say(at, f"{source.name} has {bound} {mine}, {target.name} {other}")

    def type_of(self, file: File, node: Node) -> str | None:
        simple = {"string": "string", "number": "int", "boolean": "bool", "array": "array",
                  "object": "object", "for_statement": "array"}
        kind = node.type
        if kind in simple:
            return simple[kind]
        if kind == "parenthesized_expression":
            return self.type_of(file, named(node)[0])
        if kind == "unary_expression":
            return "bool" if node.children[0].type == "!" else "int"
        if kind == "binary_expression":
            operator = node.children[1].type
            if operator == "??":
                return self.type_of(file, named(node)[-1])
            return "bool" if operator in BOOLEAN_OPERATORS else "int"
        if kind == "call_expression":
            return FUNCTIONS.get(text(node.child_by_field_name("function")))
        if kind == "identifier":
            symbol = file.symbols.get(text(node))
            if symbol and symbol.kind == "parameter":
                return symbol.type
            if symbol and symbol.kind == "variable":
                return self.type_of(file, symbol.value)
        if kind == "member_expression":
            return self.output_type(file, node)
        return None

    def output_type(self, file: File, node: Node) -> str | None:
        outer = node.child_by_field_name("object")
        if outer.type != "member_expression" or text(outer.child_by_field_name("property")) != "outputs":
            return None
        base = outer.child_by_field_name("object")
        if base.type == "subscript_expression":
            base = base.child_by_field_name("object")
        module = file.symbols.get(text(base))
        target = module and module.kind == "module" and self.module_file(file, module)
        wanted = target and target.outputs.get(text(node.child_by_field_name("property")))
        return wanted.type if wanted else None


def load(path: Path):
    return json.loads(path.read_text())
