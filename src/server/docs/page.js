// What would call another host is off: fonts, telemetry, the proxy, the assistant.
const gateway = new URL("..", location.href).href.replace(/\/$/, "");
Scalar.createApiReference("#api", {
  url: `${gateway}/openapi.json`,
  servers: [{ url: gateway, description: "This gateway" }],
  withDefaultFonts: false,
  telemetry: false,
  proxyUrl: "",
  agent: { disabled: true },
  mcp: { disabled: true },
  showDeveloperTools: "never",
  hideModels: true,
  hideClientButton: true,
  defaultHttpClient: { targetKey: "shell", clientKey: "curl" },
  documentDownloadType: "direct",
  metaData: { title: "sightline API" },
});
