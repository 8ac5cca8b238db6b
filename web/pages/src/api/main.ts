/** Interactive API reference, from `/openapi.json` of the gate that serves this page. */

import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";
import "./api.css";

SwaggerUI({
    url: "/openapi.json",
    domNode: document.getElementById("root"),
    deepLinking: true,
    // Send no request to a third party.
    validatorUrl: null,
});
