"""Safety: look at the prompt before anything is loaded, and at the video before anything is written."""

from comfy_api.latest import io

from .engine.safety.stream import ACTIONS, EVERY, STOP, Report
from .host import messages, safety
from .widgets import CATEGORY, advanced, found_by, verdict


def labels_input() -> io.Input:
    return advanced(io.String.Input("unsafe_labels", default="", optional=True,
                                    tooltip="Labels of the classifier that count as unsafe, with commas. Empty: those that are known to."))


def threshold_input() -> io.Input:
    return io.Float.Input("threshold", default=0.5, min=0.0, max=1.0, step=0.05, tooltip="From this score on something is unsafe. Lower is stricter.")


class Wan22CheckPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wan22CheckPrompt",
            display_name="Wan 2.2 Check Prompt",
            category=CATEGORY,
            **found_by("safety checker", "NSFW", "moderation"),
            description="Stops the graph before any expert is loaded when a prompt asks for nudity, sex or gore. Off by default.",
            inputs=[
                io.String.Input("text", multiline=True, default="", tooltip="The prompt, after expansion if there is one."),
                io.Boolean.Input("enabled", default=False, tooltip="Off: the text passes as it is."),
                io.Combo.Input("classifier", options=safety.text_classifier_names(), default=safety.PHRASES,
                               tooltip="phrase list: English and Chinese, needs no download. Or a text-classification folder in models/safety, "
                                       "such as distilbert-nsfw-text-classifier."),
                threshold_input(), labels_input(),
            ],
            outputs=[io.String.Output("checked", display_name="text")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, enabled: bool | None = None, classifier: str | None = None, threshold: float | None = None,
                        unsafe_labels: str | None = "") -> bool | str:
        return verdict(safety.check_text_settings, classifier, threshold, unsafe_labels) if enabled else True

    @classmethod  # async: ComfyUI runs such nodes before others, and so before it loads the experts
    async def execute(cls, text: str, enabled: bool, classifier: str, threshold: float, unsafe_labels: str = "") -> io.NodeOutput:
        if not enabled:
            return io.NodeOutput(text)
        score = safety.check_prompt(text, classifier, threshold, unsafe_labels).score()
        passed = f"Nothing unsafe found: the prompt scores {score}, the threshold is {threshold:g}."
        return io.NodeOutput(text, ui=messages.show(cls.hidden.unique_id, passed))


class Wan22CheckVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = safety.picture_classifier_names()
        return io.Schema(
            node_id="Wan22CheckVideo",
            display_name="Wan 2.2 Check Video",
            category=CATEGORY,
            **found_by("safety checker", "NSFW", "blur"),
            description="Looks at a video while it is written, every few frames and in each scene: an unsafe one is not written at all, or its "
                        "unsafe parts are blurred. Off by default.",
            inputs=[
                io.Video.Input("video", tooltip="From Wan 2.2 Decode, before interpolation."),
                io.Boolean.Input("enabled", default=False, tooltip="Off: the video passes as it is."),
                io.Combo.Input("classifier", options=names, default=names[0],
                               tooltip="An image-classification folder in models/safety, such as nsfw_image_detection from "
                                       "huggingface.co/Falconsai/nsfw_image_detection."),
                threshold_input(),
                io.Combo.Input("when_unsafe", options=list(ACTIONS), default=STOP,
                               tooltip="stop: an error, and no file. blur: the unsafe parts become soft colours."),
                advanced(io.Int.Input("every", default=EVERY, min=1, max=161, optional=True,
                                      tooltip="Frames from one look to the next. The first and last frame of each scene are always looked at.")),
                labels_input(),
            ],
            outputs=[io.Video.Output("checked", display_name="VIDEO")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, enabled: bool | None = None, classifier: str | None = None, threshold: float | None = None,
                        unsafe_labels: str | None = "") -> bool | str:
        return verdict(safety.check_picture_settings, classifier, threshold, unsafe_labels) if enabled else True

    @classmethod
    def execute(cls, video: io.Video.Type, enabled: bool, classifier: str, threshold: float, when_unsafe: str, every: int = EVERY,
                unsafe_labels: str = "") -> io.NodeOutput:
        if not enabled:
            return io.NodeOutput(video)
        node_id = cls.hidden.unique_id

        def report_to(report: Report) -> None:
            messages.show(node_id, str(report))

        return io.NodeOutput(safety.checked_video(video, classifier, threshold, when_unsafe, every, unsafe_labels, report_to))
