"""Write the manifest of a setup program for winget: three files, for winget-pkgs.

learn.microsoft.com/windows/package-manager/package/manifest says what each field means.
JSON is YAML, and needs no library that writes it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

NAME = "letsencrypt-mdaemon"
PUBLISHER = f"{NAME} contributors"
IDENTIFIER = f"{NAME}.{NAME}"
SCHEMA = "1.6.0"
# As letsencrypt-mdaemon.nsi has them; winget puts them into words.
EXIT_CODES = {
    3: "installInProgress",
    4: "downgrade",
    5: "packageInUse",
    6: "invalidParameter",
}


def manifests(setup: bytes, version: str, url: str) -> dict[str, dict[str, Any]]:
    """Return the manifest, as a mapping by file name.

    Args:
        setup: The setup program, as it is published: signed, if it is signed at all.
        url: Where the setup program is downloaded from.
    """
    both = {"PackageIdentifier": IDENTIFIER, "PackageVersion": version}
    last = {"ManifestVersion": SCHEMA}
    codes = [
        {"InstallerReturnCode": code, "ReturnResponse": response}
        for code, response in EXIT_CODES.items()
    ]
    installer = {
        "Architecture": "x64",
        "InstallerUrl": url,
        "InstallerSha256": hashlib.sha256(setup).hexdigest().upper(),
    }
    return {
        f"{IDENTIFIER}.yaml": {
            **both,
            "DefaultLocale": "en-US",
            "ManifestType": "version",
            **last,
        },
        f"{IDENTIFIER}.installer.yaml": {
            **both,
            "Platform": ["Windows.Desktop"],
            "InstallerType": "nullsoft",
            "Scope": "machine",
            "InstallModes": ["interactive", "silent"],
            "ElevationRequirement": "elevatesSelf",
            "UpgradeBehavior": "install",
            "Commands": [NAME],
            "ProductCode": NAME,
            "ExpectedReturnCodes": codes,
            "Installers": [installer],
            "ManifestType": "installer",
            **last,
        },
        f"{IDENTIFIER}.locale.en-US.yaml": {
            **both,
            "PackageLocale": "en-US",
            "Publisher": PUBLISHER,
            "PackageName": NAME,
            "License": "MIT",
            "ShortDescription": "Keeps the certificate of an MDaemon mail server fresh",
            "Moniker": NAME,
            "Tags": ["acme", "certificate", "letsencrypt", "mdaemon", "tls"],
            "ManifestType": "defaultLocale",
            **last,
        },
    }


def main() -> None:
    """Read the command line, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setup", type=Path, help="the setup program")
    parser.add_argument("version")
    parser.add_argument("url", help="where it is downloaded from")
    parser.add_argument("out", type=Path, help="the folder for the three files")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found = manifests(given.setup.read_bytes(), given.version, given.url)
    for name, manifest in found.items():
        text = json.dumps(manifest, indent=2)
        (given.out / name).write_text(f"{text}\n", encoding="ascii")


if __name__ == "__main__":
    main()
