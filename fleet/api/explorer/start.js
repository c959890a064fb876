/** Show the API's own description; a token that the console keeps in this tab is used here too. */

if (matchMedia("(prefers-color-scheme: dark)").matches) {
  document.documentElement.classList.add("dark-mode");
}

const ui = window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  // It would send the description to a server of others.
  validatorUrl: null,
  onComplete: () => {
    const token = sessionStorage.getItem("fleet-token");
    if (token) ui.preauthorizeApiKey("token", token);
  },
});
