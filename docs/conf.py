"""The site, built by `make docs`: its pages are the Markdown files of this folder, the reference and the gallery."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # for the package website

import matplotlib  # noqa: E402

import spikeloom  # noqa: E402

matplotlib.use("agg")

project = "spikeloom"
author = "spikeloom developers"
copyright = author
version = release = spikeloom.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "website.mathml",
    "website.reference",
]
exclude_patterns = ["website", "static", "benchmarks", "gallery", "**/README.md"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
html_math_renderer = "mathml"

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False  # what torch says of its own methods
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"
toc_object_entries = True

smartquotes_action = "D"  # dashes only: mem' is a name

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

if (DOCS / "gallery").is_dir():
    import matplotlib.pyplot as plt
    import torch

    def fresh(gallery_conf: dict[str, object], script: str) -> None:
        """Before each script: the look of its pictures, a seed, and plain settings of the library."""
        plt.style.use(["default", str(DOCS / "gallery.mplstyle")])
        torch.manual_seed(0)

    extensions.append("sphinx_gallery.gen_gallery")
    sphinx_gallery_conf = {
        "examples_dirs": "gallery",
        "gallery_dirs": "tutorials",
        "filename_pattern": r"/plot_",
        "within_subsection_order": "FileNameSortKey",
        "reset_modules": (fresh,),
        "subsection_order": [f"gallery/{part}" for part in ("neurons", "codes", "training", "learning", "deployment")],
        "doc_module": ("spikeloom",),
        "reference_url": {"spikeloom": None},  # names in the code of a script link to the reference
        "image_srcset": ["2x"],
        "capture_repr": (),  # output is what a script prints
        "matplotlib_animations": True,
        "show_memory": False,
        "write_computation_times": False,  # its pages load scripts from elsewhere
        "min_reported_time": 1,
        "remove_config_comments": True,
        "abort_on_example_error": True,
        "download_all_examples": True,
        "plot_gallery": os.environ.get("SPIKELOOM_GALLERY", "1") == "1",
    }

html_theme = "pydata_sphinx_theme"
html_title = "spikeloom"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_logo = None
html_favicon = "static/icon.svg"
html_baseurl = "https://spikeloom.github.io/spikeloom/"
html_show_sourcelink = False
html_sidebars = {"index": [], "messages": [], "glossary": []}
html_theme_options = {
    "logo": {"text": "spikeloom", "image_light": "static/icon.svg", "image_dark": "static/icon.svg"},
    "icon_links": [
        {"name": "Sources", "url": "https://github.com/spikeloom/spikeloom", "icon": "fa-brands fa-github"},
    ],
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
suppress_warnings = ["config.cache"]  # reset_modules holds a function
