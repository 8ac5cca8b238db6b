/** A chat through the gate: sign in as a sample user, watch the quota move, meet the limit, upgrade, go on. */

import { createRoot } from "react-dom/client";
import { App } from "./App.js";
import "@quota-gate/react/styles.css";
import "../page.css";

createRoot(document.getElementById("root") as HTMLElement).render(<App />);
