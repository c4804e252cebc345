// Another's verifier of fal's webhooks. argv: messages as [headers, body], and the address of the keys.
import tern from "@hookflo/tern";

const [messages, jwksUrl] = process.argv.slice(2).map((argument) => JSON.parse(argument));
const { signatureConfig } = tern.getPlatformAlgorithmConfig("falai");
const config = {
  platform: "falai", secret: "",
  signatureConfig: { ...signatureConfig, customConfig: { ...signatureConfig.customConfig, jwksUrl } },
};
const verdicts = [];
for (const [headers, body] of messages) {
  const request = new Request("https://receiver.example/hook", { method: "POST", headers, body });
  const { isValid, error } = await tern.WebhookVerificationService.verify(request, config);
  verdicts.push({ isValid, error });
}
console.log(JSON.stringify(verdicts));
