/** The contract, to read and to try: `/openapi.json` of the gate that serves this page. */

import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";
import "./api.css";

SwaggerUI({
    url: "/openapi.json",
    domNode: document.getElementById("root"),
    deepLinking: true,
    // Nothing is asked of anybody else.
    validatorUrl: null,
});
