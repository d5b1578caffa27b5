"""The figure that shows a surface: its canvas and controls, and the script of both."""

from cryoinfer.report.parts import packaged, prose

_KEYS = (
    "Drag the picture to turn it, or use the arrow keys; plus and minus zoom. The cut "
    "takes away what lies before a plane that faces you; what it lays bare is orange."
)


def surface_figure(name: str, sliders: str, buttons: str, caption: str) -> str:
    """Return a figure that a script of the page makes a view.

    Parameters
    ----------
    name : str
        Its id.
    sliders, buttons : str
        HTML of the controls that only this figure has; both may be empty.
    caption : str
        Said before how the picture is turned.

    Returns
    -------
    str
        HTML.
    """
    return f"""<style>
{packaged("surface.css")}</style>
<figure id="{name}" class="surface">
<canvas tabindex="0" role="img" aria-label="Surface of a map; arrow keys turn it, plus \
and minus zoom"></canvas>
<div class="sliders">
{sliders}
<div class="pair">
<label><span>Zoom</span> <input type="range" class="zoom" min="-1" max="3" step="0.05" \
value="0"><output></output></label>
<label><span>Cut</span> <input type="range" class="cut" min="-1" max="1" step="0.01" \
value="1"><output></output></label>
</div>
</div>
<button type="button" class="upright">Reset the view</button>
{buttons}
<figcaption>{prose(f"{caption} {_KEYS}".strip())}</figcaption>
</figure>"""


def surface_script() -> str:
    """Return the script that all such figures share, once on a page."""
    return f"<script>\n{packaged('surface.js')}</script>"
