"""Whether values.schema.json is a closed schema in draft-07, which both versions of Helm understand in full.

    python3 schema.py values.schema.json

Prints what is wrong and ends with 1.
"""

import json
import sys

import jsonschema


def open_places(schema, at="values"):
    """Where a misspelt key would pass: objects with known keys that let others in."""
    if isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from open_places(part, f"{at}[{number}]")
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict) and schema.get("additionalProperties") is not False:
        yield at
    for key, part in schema.items():
        yield from open_places(part, f"{at}.{key}")


def main():
    with open(sys.argv[1]) as text:
        schema = json.load(text)
    found = []
    if schema.get("$schema") != "http://json-schema.org/draft-07/schema#":
        found.append("it is not draft-07")
    jsonschema.Draft7Validator.check_schema(schema)
    found += [f"{place} is open" for place in open_places(schema)]
    for problem in found:
        print(f"{sys.argv[1]}: {problem}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
